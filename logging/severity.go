package logging

import (
	"strings"

	"giggle/fault"
)

// Severity is how bad an entry is, by the numbers of google.logging.type.LogSeverity.
type Severity int16

// The severities of Cloud Logging.
const (
	Default   Severity = 0 // none was said
	Debug     Severity = 100
	Info      Severity = 200
	Notice    Severity = 300
	Warning   Severity = 400
	Error     Severity = 500
	Critical  Severity = 600
	Alert     Severity = 700
	Emergency Severity = 800
)

var severities = []struct {
	severity Severity
	name     string
}{
	{Default, "DEFAULT"}, {Debug, "DEBUG"}, {Info, "INFO"}, {Notice, "NOTICE"}, {Warning, "WARNING"}, {Error, "ERROR"},
	{Critical, "CRITICAL"}, {Alert, "ALERT"}, {Emergency, "EMERGENCY"},
}

// String is the severity's name, such as "WARNING".
func (s Severity) String() string {
	for _, x := range severities {
		if x.severity == s {
			return x.name
		}
	}
	return "DEFAULT"
}

// ParseSeverity reads a severity by name, in any case.
func ParseSeverity(s string) (Severity, error) {
	for _, x := range severities {
		if strings.EqualFold(x.name, s) {
			return x.severity, nil
		}
	}
	return Default, fault.Invalid("severity",
		"%.40q is not DEFAULT, DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL, ALERT or EMERGENCY", s)
}

// UnmarshalText reads a severity by name.
func (s *Severity) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSeverity(string(b))
	return err
}

// MarshalText writes a severity's name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// spoken are the names that logging libraries use for severities.
var spoken = map[string]Severity{
	"TRACE": Debug, "WARN": Warning, "ERR": Error, "CRIT": Critical, "FATAL": Critical, "PANIC": Alert,
	"EMERG": Emergency,
}

// severityOf reads what an application calls a severity; what isn't known is Default.
func severityOf(s string) Severity {
	if sev, err := ParseSeverity(s); err == nil {
		return sev
	}
	return spoken[strings.ToUpper(s)]
}
