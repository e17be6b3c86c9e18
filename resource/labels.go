package resource

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"giggle/fault"
)

const (
	maxLabels     = 64 // of one resource
	maxLabelText  = 63 // characters of a key and of a value
	maxKeyPrefix  = 253
	labelsAllowed = "lower-case letters, digits, hyphens and underscores"
)

var (
	labelName   = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]*$`)
	labelValue  = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]*$`)
	labelPrefix = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
)

// CheckLabels holds labels to Google Cloud's rules (https://cloud.google.com/compute/docs/labeling-resources, the same
// for all services): at most 64, each at most 63 characters, lower-case. The fault names the field, the label and the
// limit. A key may have the prefix of a platform's own, "client.knative.dev/nonce".
func CheckLabels(labels map[string]string, field string) error {
	if len(labels) > maxLabels {
		return fault.Invalid(field, "%d labels are too many; %d are the most", len(labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name, value := key, labels[key]
		if prefix, rest, ok := strings.Cut(key, "/"); ok {
			if len(prefix) > maxKeyPrefix || !labelPrefix.MatchString(prefix) {
				return fault.Invalid(field, "the label key %.80q has a prefix that is no domain", key)
			}
			name = rest
			// The platforms' own keys are in camel case: "serving.knative.dev/configurationGeneration".
			name = strings.ToLower(name)
		}
		switch {
		case name == "":
			return fault.Invalid(field, "a label has no key")
		case len([]rune(name)) > maxLabelText:
			return fault.Invalid(field, "the label key %.80q has %d characters; %d are the most", key, len([]rune(name)),
				maxLabelText)
		case !labelName.MatchString(name):
			return fault.Invalid(field, "the label key %.80q must begin with a lower-case letter and have only %s", key,
				labelsAllowed)
		case len([]rune(value)) > maxLabelText:
			return fault.Invalid(field, "the value of the label %.80q has %d characters; %d are the most", key,
				len([]rune(value)), maxLabelText)
		case !labelValue.MatchString(value):
			return fault.Invalid(field, "the value %.80q of the label %.80q may only have %s", value, key, labelsAllowed)
		}
	}
	return nil
}
