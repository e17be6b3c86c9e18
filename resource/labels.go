package resource

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"giggle/fault"
)

const (
	maxLabels     = 64 // of one resource
	maxLabelText  = 63 // characters of a key and of a value
	maxKeyPrefix  = 253
	labelsAllowed = "lower-case letters, digits, hyphens and underscores"
)

var (
	labelName  = regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]*$`)
	labelValue = regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]*$`)

	keyPrefix     = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	platformLabel = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$`)
)

// CheckLabels holds labels to Google Cloud's rules (https://cloud.google.com/compute/docs/labeling-resources, the same
// for all services): at most 64, each at most 63 characters, lower-case. A key with a domain before it is a platform's
// own, "run.googleapis.com/startupProbeType: Default", and follows Kubernetes' rules with its value
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels). The fault names the field, the label and
// the limit.
func CheckLabels(labels map[string]string, field string) error {
	if len(labels) > maxLabels {
		return fault.Invalid(field, "%d labels are too many; %d are the most", len(labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name, value := key, labels[key]
		names, values, allowed := labelName, labelValue, labelsAllowed
		if prefix, rest, ok := strings.Cut(key, "/"); ok {
			if len(prefix) > maxKeyPrefix || !keyPrefix.MatchString(prefix) {
				return fault.Invalid(field, "the label key %.80q has a prefix that is no domain", key)
			}
			name, names, values, allowed = rest, platformLabel, platformLabel, "letters, digits, hyphens, underscores and dots"
		}
		switch {
		case name == "":
			return fault.Invalid(field, "the label key %.80q has no name", key)
		case utf8.RuneCountInString(name) > maxLabelText:
			return fault.Invalid(field, "the label key %.80q has more than %d characters", key, maxLabelText)
		case !names.MatchString(name):
			return fault.Invalid(field, "the label key %.80q must begin with a letter and have only %s", key, allowed)
		case utf8.RuneCountInString(value) > maxLabelText:
			return fault.Invalid(field, "the value of the label %.80q has more than %d characters", key, maxLabelText)
		case !values.MatchString(value):
			return fault.Invalid(field, "the value %.80q of the label %.80q may only have %s", value, key, allowed)
		}
	}
	return nil
}
