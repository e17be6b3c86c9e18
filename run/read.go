package run

import "strconv"

// SetLimit reads one resource limit of a template's container i as both APIs write it: "cpu", "memory" or
// "nvidia.com/gpu".
func (c *Container) SetLimit(i int, resource, quantity string) error {
	switch resource {
	case "cpu":
		c.CPU = quantity
	case "memory":
		c.Memory = quantity
	case "nvidia.com/gpu":
		n, err := strconv.Atoi(quantity)
		if err != nil {
			return invalid(FieldGPU.At(i), "%.40q is no number", quantity)
		}
		c.GPU = n
	default:
		return invalid(FieldLimits.At(i),
			"%.60q is not a resource that can be limited; cpu, memory and nvidia.com/gpu are", resource)
	}
	return nil
}
