package egress

import "testing"

// A packet of any bytes has addresses or none; nothing is read behind its end.
func FuzzParse(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 80, 0, 9, 0, 0, 'x'})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 4, 6, 64}, make([]byte, 36)...))
	f.Add([]byte{0x4f, 0, 0, 20})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parse(b)
		if p.from.IsValid() != p.to.IsValid() {
			t.Errorf("%v has one address", p)
		}
		if p.port != 0 && !p.to.IsValid() {
			t.Errorf("%v has a port and no address", p)
		}
	})
}
