package run_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestResources holds CPU, memory, concurrency, CPU allocation and execution environment to what Cloud Run takes
// together (https://cloud.google.com/run/docs/configuring/services/cpu, its table and the requirements of less than one
// CPU; …/services/memory-limits, minimum memory and minimum CPUs).
func TestResources(t *testing.T) {
	const memory, cpu = "template.containers[0].memory", "template.containers[0].cpu"
	for _, c := range []struct {
		cpu, memory string
		concurrency int
		always      bool
		environment string
		refused     string // the field, "" for what is taken
	}{
		{"0.08", "128Mi", 1, false, "gen1", ""},
		{"0.08", "512Mi", 1, false, "", ""},
		{"0.08", "513Mi", 1, false, "", memory},
		{"0.079", "128Mi", 1, false, "", cpu},
		{"80m", "128Mi", 1, false, "", ""},
		{"0.083", "128Mi", 1, false, "", ""},
		{"0.49", "513Mi", 1, false, "", memory},
		{"0.5", "1Gi", 1, false, "", ""},
		{"500m", "1025Mi", 1, false, "", memory},
		{"0.999", "1Gi", 1, false, "", ""},
		{"0.5", "512Mi", 2, false, "", cpu},
		{"0.5", "512Mi", 80, false, "", cpu},
		{"0.5", "512Mi", 1, true, "", cpu},
		{"0.5", "512Mi", 1, false, "gen2", cpu},
		{"1", "127Mi", 80, false, "", memory},
		{"1", "128Mi", 80, false, "", ""},
		{"1", "128Mi", 80, false, "gen2", memory},
		{"1", "511Mi", 80, true, "", memory},
		{"1", "512Mi", 80, true, "gen2", ""},
		{"1", "4Gi", 1000, false, "", ""},
		{"1", "4097Mi", 80, false, "", memory},
		{"1", "512Mi", 1001, false, "", "template.concurrency"},
		{"1.5", "512Mi", 80, false, "", cpu},
		{"1500m", "512Mi", 80, false, "", cpu},
		{"2", "128Mi", 80, false, "", ""},
		{"2000m", "8Gi", 80, false, "", ""},
		{"2", "8193Mi", 80, false, "", memory},
		{"3", "4Gi", 80, false, "", cpu},
		{"4", "2047Mi", 80, false, "", memory},
		{"4", "512Mi", 80, false, "", memory},
		{"4", "2Gi", 80, false, "", ""},
		{"4", "16Gi", 80, true, "gen2", ""},
		{"4", "17Gi", 80, false, "", memory},
		{"5", "4Gi", 80, false, "", cpu},
		{"6", "4095Mi", 80, false, "", memory},
		{"6", "4Gi", 80, false, "", ""},
		{"6", "24Gi", 80, false, "", ""},
		{"6", "25Gi", 80, false, "", memory},
		{"7", "4Gi", 80, false, "", cpu},
		{"8", "2Gi", 80, false, "", memory},
		{"8", "4Gi", 80, false, "", ""},
		{"8", "32Gi", 80, false, "", ""},
		{"8", "33Gi", 80, false, "", memory},
		{"9", "4Gi", 80, false, "", cpu},
		{"16", "32Gi", 80, false, "", cpu},
		{"0", "512Mi", 80, false, "", ""}, // as if it were not there
		{"-1", "512Mi", 80, false, "", cpu},
		{"", "", 80, false, "", ""},
		{"4", "", 80, false, "", memory}, // 512Mi, which are too little
		{"", "8Gi", 80, false, "", memory},
		{"1", "1G", 80, false, "", ""},
		{"1", "536870912", 80, false, "", ""},
		{"1", "lots", 80, false, "", memory},
	} {
		t.Run(fmt.Sprintf("%s %s %d %t %s", c.cpu, c.memory, c.concurrency, c.always, c.environment), func(t *testing.T) {
			s := jokes("img:1")
			s.Template.Containers[0].CPU, s.Template.Containers[0].Memory = c.cpu, c.memory
			s.Template.Concurrency, s.Template.CPUAlways = c.concurrency, c.always
			s.Template.ExecutionEnvironment = c.environment
			err := s.Validate()
			if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
				t.Errorf("err = %v, want %q", err, c.refused)
			}
		})
	}
}

func TestMemoryOfCPU(t *testing.T) {
	s := jokes("img:1")
	s.Template.Containers[0].CPU, s.Template.Containers[0].Memory = "0.5", "2Gi"
	const want = "For 0.5 CPU, memory must be between 128Mi and 1Gi inclusive."
	s.Template.Concurrency = 1
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v, want %q", err, want)
	}
}
