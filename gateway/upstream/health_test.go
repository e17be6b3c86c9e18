package upstream

import "testing"

// An instance's answer to the gRPC health check is hostile input.
func FuzzHealthStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 2, 8})
	f.Add([]byte{1, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 9, 0x12, 3, 'a', 'b', 'c', 8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if status := healthStatus(b); status == serving && len(b) < 7 {
			t.Errorf("%q says that it serves", b)
		}
	})
}

func TestHealthStatus(t *testing.T) {
	for in, want := range map[string]uint64{
		"\x00\x00\x00\x00\x02\x08\x01": 1, "\x00\x00\x00\x00\x02\x08\x02": 2, "\x00\x00\x00\x00\x00": 0, "": 0,
		"\x01\x00\x00\x00\x02\x08\x01":            0,
		"\x00\x00\x00\x00\x07\x12\x03abc\x08\x01": 1, "\x00\x00\x00\x00\x02\x08": 0,
	} {
		if got := healthStatus([]byte(in)); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}
