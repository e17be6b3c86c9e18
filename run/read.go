package run

import (
	"strconv"

	"giggle/fault"
)

// SetLimit reads one resource limit of a container as both APIs write it: "cpu", "memory" or "nvidia.com/gpu". Path is
// that of the limits.
func (c *Container) SetLimit(path, resource, quantity string) error {
	switch resource {
	case "cpu":
		c.CPU = quantity
	case "memory":
		c.Memory = quantity
	case "nvidia.com/gpu":
		n, err := strconv.Atoi(quantity)
		if err != nil {
			return fault.Invalid(path+"[nvidia.com/gpu]", "%.40q is no number", quantity)
		}
		c.GPU = n
	default:
		return fault.Invalid(path, "%.60q is not a resource that can be limited; cpu, memory and nvidia.com/gpu are", resource)
	}
	return nil
}

// CheckLabels holds labels to Google's rule for them: at most 64, values of at most 63 characters.
func CheckLabels(labels map[string]string, path string) error {
	if len(labels) > 64 {
		return fault.Invalid(path, "more than 64 labels")
	}
	for k, v := range labels {
		if len(k) > 317 || len(v) > 63 {
			return fault.Invalid(path, "the label %.60q is too long: 63 characters for a value", k)
		}
	}
	return nil
}
