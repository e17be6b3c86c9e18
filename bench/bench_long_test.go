//go:build long

package bench

import "testing"

// TestLongRun runs the benchmarks that put a load on the platform.
func TestLongRun(t *testing.T) {
	runs(t, []string{"wake_25", "wake_100", "ramp", "gateway_rps", "traffic_change", "rollout_p95", "models",
		"idle_rss_1000"},
		"wake_25", "wake_100", "ramp", "gateway_rps", "gateway_cpu", "traffic_change", "rollout_p95",
		"embedded_first_token", "embedded_first_token_warm", "vertex_overhead", "vertex_overhead_grpc",
		"vertex_streams_50", "idle_rss_1000", "idle_rss_1000_used")
}
