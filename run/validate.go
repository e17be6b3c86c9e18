package run

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"giggle/fault"
	"giggle/resource"
)

// maxServiceName leaves room for the hash and region letters in a host label of 63 bytes, as Cloud Run's limit does.
const maxServiceName = 49

// reserved are the environment variables that the runtime contract sets itself.
var reserved = []string{"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION",
	"CLOUD_RUN_TASK_INDEX",
	"CLOUD_RUN_TASK_ATTEMPT", "CLOUD_RUN_TASK_COUNT", "CLOUD_RUN_TIMEOUT_SECONDS"}

// Validate checks a service as Cloud Run does. The fault names the field by one of Fields.
func (s *Service) Validate() error {
	if !resource.Label(s.Name.ID, maxServiceName) {
		return invalid(FieldName,
			"%q must be at most %d lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen", s.Name.ID, maxServiceName)
	}
	if len(s.Template.Containers) != 1 {
		if len(s.Template.Containers) == 0 {
			return invalid(FieldContainers, "one container is needed")
		}
		return fault.NotImplemented(string(FieldContainer.At(1)),
			"sidecar containers are not implemented yet; use one container")
	}
	if err := s.Template.validate(s.Name.ID); err != nil {
		return err
	}
	if s.Scaling.Min < 0 || s.Scaling.Min > 1000 {
		return invalid(FieldMinScale, "must be 0 to 1000")
	}
	if s.Scaling.Max < 0 || s.Scaling.Max > 1000 {
		return invalid(FieldMaxScale, "must be 1 to 1000")
	}
	if s.Scaling.Max > 0 && s.Scaling.Min > s.Scaling.Max {
		return invalid(FieldMinScale, "the minimum of instances is above the maximum")
	}
	if err := resource.CheckLabels(s.Labels, string(FieldLabels)); err != nil {
		return err
	}
	return s.validateTraffic()
}

func (t *Template) validate(service string) error {
	if t.Revision != "" && (!resource.Label(t.Revision, 63) || !strings.HasPrefix(t.Revision, service+"-")) {
		return invalid(FieldRevision,
			"%q must begin with %q and have at most 63 lower-case letters, digits and hyphens", t.Revision, service+"-")
	}
	if t.Concurrency < 0 || t.Concurrency > 1000 {
		return invalid(FieldConcurrency, "must be 1 to 1000")
	}
	if t.Timeout < 0 || t.Timeout > 3600 {
		return invalid(FieldTimeout, "must be 1 to 3600 seconds")
	}
	if t.Scaling.Min < 0 {
		return invalid(FieldRevisionMinScale, "must be 0 to 1000")
	}
	if t.Scaling.Max < 0 || t.Scaling.Max > 1000 {
		return invalid(FieldRevisionMaxScale, "must be 1 to 1000")
	}
	if t.Scaling.Max > 0 && t.Scaling.Min > t.Scaling.Max {
		return invalid(FieldRevisionMinScale, "the minimum of instances is above the maximum")
	}
	if t.ExecutionEnvironment != "" && t.ExecutionEnvironment != "gen1" && t.ExecutionEnvironment != "gen2" {
		return invalid(FieldEnvironment, "must be gen1 or gen2")
	}
	if err := resource.CheckLabels(t.Labels, string(FieldRevisionLabels)); err != nil {
		return err
	}
	if err := t.VPC.validate(); err != nil {
		return err
	}
	if err := t.CloudSQL.validate(); err != nil {
		return err
	}
	for i := range t.Containers {
		if err := t.Containers[i].validate(i, t); err != nil {
			return err
		}
		if err := t.validateFraction(i); err != nil {
			return err
		}
	}
	return t.validateGPU()
}

// maxDatabases is how many databases a revision may have sockets of.
const maxDatabases = 20

func (c CloudSQL) validate() error {
	if len(c.Instances) > maxDatabases {
		return invalid(FieldCloudSQL, "%d databases are too many; %d are the most", len(c.Instances), maxDatabases)
	}
	for i, name := range c.Instances {
		part := strings.Split(name, ":")
		if len(part) != 3 || !resource.ProjectID(part[0]) || !resource.IsRegion(part[1]) || !resource.Label(part[2], 97) {
			return invalid(FieldCloudSQL, "%.200q is not PROJECT:REGION:INSTANCE", name)
		}
		if slices.Contains(c.Instances[:i], name) {
			return invalid(FieldCloudSQL, "%s is there twice", name)
		}
	}
	return nil
}

// validateFraction holds a fraction of a core and little memory to what they go together with.
func (t *Template) validateFraction(i int) error {
	c := &t.Containers[i]
	cpu, _ := MilliCPU(c.CPU) // validated
	memory, _ := Bytes(c.Memory)
	switch {
	case cpu > 0 && cpu < 1000 && t.CPUAlways:
		return invalid(FieldCPU.At(i), "Total cpu < 1 is not supported with cpu-throttling set to false.")
	case cpu > 0 && cpu < 1000 && t.ExecutionEnvironment == "gen2":
		return invalid(FieldCPU.At(i), "Total cpu < 1 is not supported with gen2 execution environment.")
	case memory > 0 && memory < 512<<20 && (t.CPUAlways || t.ExecutionEnvironment == "gen2"):
		return invalid(FieldMemory.At(i),
			"Total memory < 512 Mi is not supported with gen2 execution environment or with cpu-throttling set to false.")
	}
	return nil
}

// validate checks the template's container i.
func (c *Container) validate(i int, t *Template) error {
	if c.Image == "" {
		return invalid(FieldImage.At(i), "an image is needed")
	}
	if len(c.Image) > 1024 || strings.ContainsAny(c.Image, " \t\n\"'") {
		return invalid(FieldImage.At(i), "%.100q is not an image reference", c.Image)
	}
	if c.Port < 0 || c.Port > 65535 {
		return invalid(FieldPort.At(i), "must be 1 to 65535")
	}
	if !slices.Contains([]string{"", "http1", "h2c"}, c.PortName) {
		return invalid(FieldPortName.At(i), "must be http1 or h2c")
	}
	if len(c.Env) > 1000 {
		return invalid(FieldEnv.At(i), "more than 1000 variables")
	}
	seen := make(map[string]bool)
	for j, e := range c.Env {
		switch {
		case e.Name == "" || strings.ContainsAny(e.Name, "= \x00"):
			return invalid(FieldEnvName.At(i, j), "%q is not a variable's name", e.Name)
		case slices.Contains(reserved, e.Name):
			return invalid(FieldEnvName.At(i, j),
				"The following reserved env names were provided: %s. These values are automatically set by the system.",
				e.Name)
		case seen[e.Name]:
			return invalid(FieldEnvName.At(i, j), "%s is set twice", e.Name)
		case len(e.Value) > 32<<10 || strings.ContainsRune(e.Value, 0):
			return invalid(FieldEnvValue.At(i, j), "longer than 32 KiB, or has a zero byte")
		}
		seen[e.Name] = true
	}
	if err := c.Startup.validate(FieldStartup.At(i), startupLimits); err != nil {
		return err
	}
	if err := c.Liveness.validate(FieldLiveness.At(i), livenessLimits); err != nil {
		return err
	}
	if err := c.Readiness.validate(FieldReadiness.At(i), readinessLimits); err != nil {
		return err
	}
	return c.validateResources(i, t)
}

// The most that an instance without a GPU may have.
const (
	mostCPU    = 8000 // millicores
	mostMemory = 32 << 30
)

const (
	mi int64 = 1 << 20
	gi int64 = 1 << 30
)

// memoryOf is how much memory goes with how many millicores, from each row's up to the next row's
// (https://cloud.google.com/run/docs/configuring/services/cpu and …/memory-limits).
var memoryOf = []struct{ cpu, least, most int64 }{
	{0, 128 * mi, 512 * mi},
	{500, 128 * mi, gi},
	{1000, 128 * mi, 4 * gi},
	{2000, 128 * mi, 8 * gi},
	{4000, 2 * gi, 16 * gi},
	{6000, 4 * gi, 24 * gi},
	{8000, 4 * gi, 32 * gi},
}

// validateResources checks CPU and memory and what they go together with.
func (c *Container) validateResources(i int, t *Template) error {
	cpu, err := MilliCPU(c.CPU)
	if err != nil {
		return invalid(FieldCPU.At(i), "%v", err)
	}
	memory, err := Bytes(c.Memory)
	if err != nil {
		return invalid(FieldMemory.At(i), "%v", err)
	}
	if cpu == 0 {
		cpu = 1000
	}
	if memory == 0 {
		memory = 512 << 20
	}
	topCPU, topMemory := t.most()
	if cpu < 80 || cpu > topCPU || cpu > 1000 && cpu%1000 != 0 || cpu == 3000 || cpu == 5000 || cpu == 7000 {
		return invalid(FieldCPU.At(i),
			"Invalid value specified for container resources limits: cpu: %s. Must be 0.08 to 1, 1, 2, 4, 6 or 8",
			c.CPU)
	}
	if cpu < 1000 && t.Concurrency > 1 {
		return invalid(FieldCPU.At(i), "Total cpu < 1 is not supported with concurrency > 1")
	}
	if memory < 128*mi || memory > topMemory {
		return invalid(FieldMemory.At(i),
			"Invalid value specified for container resources limits: memory: %s. Must be 128Mi to %dGi", c.Memory,
			topMemory>>30)
	}
	row := memoryOf[0]
	for _, r := range memoryOf {
		if cpu >= r.cpu {
			row = r
		}
	}
	if cpu >= mostCPU {
		row.most = topMemory
	}
	if memory < row.least || memory > row.most {
		return invalid(FieldMemory.At(i),
			"Invalid value specified for container memory. For %s CPU, memory must be between %s and %s inclusive.",
			strconv.FormatFloat(float64(cpu)/1000, 'f', -1, 64), size(row.least), size(row.most))
	}
	return nil
}

// size is a quantity of bytes as Kubernetes writes it: "512Mi".
func size(n int64) string {
	if n%gi == 0 {
		return fmt.Sprintf("%dGi", n/gi)
	}
	return fmt.Sprintf("%dMi", n/mi)
}

func (s *Service) validateTraffic() error {
	sum := 0
	tags := make(map[string]bool)
	for i, t := range s.Traffic {
		if t.Latest == (t.Revision != "") {
			return invalid(FieldTarget.At(i), "either a revision or the latest one is needed, not both")
		}
		if t.Revision != "" && !resource.Label(t.Revision, 63) {
			return invalid(FieldTargetName.At(i), "%q is not a revision name", t.Revision)
		}
		if t.Percent < 0 || t.Percent > 100 {
			return invalid(FieldPercent.At(i), "must be 0 to 100")
		}
		sum += t.Percent
		if t.Tag == "" {
			continue
		}
		if !resource.Label(t.Tag, 46) || strings.Contains(t.Tag, TagMark) {
			return invalid(FieldTag.At(i),
				"%q must be at most 46 lower-case letters, digits and hyphens and begin with a letter", t.Tag)
		}
		if len(t.Tag)+len(TagMark)+len(s.Name.ID)+len("-0123456789-aa") > 63 {
			return invalid(FieldTag.At(i),
				"tag and service name together are too long for a host name: 63 bytes with the project's hash")
		}
		if tags[t.Tag] {
			return invalid(FieldTag.At(i), "the tag %q is used twice", t.Tag)
		}
		tags[t.Tag] = true
	}
	if len(s.Traffic) > 0 && sum != 100 {
		return invalid(FieldTraffic, "Traffic targets must sum to 100, but they sum to %d", sum)
	}
	return nil
}
