package run

import (
	"math/big"
	"strings"

	"giggle/fault"
)

// suffixes of Kubernetes quantities (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity).
var suffixes = []struct {
	text string
	num  int64
	den  int64
}{
	{"Ki", 1 << 10, 1}, {"Mi", 1 << 20, 1}, {"Gi", 1 << 30, 1}, {"Ti", 1 << 40, 1},
	{"m", 1, 1000}, {"k", 1000, 1}, {"M", 1_000_000, 1}, {"G", 1_000_000_000, 1}, {"T", 1_000_000_000_000, 1},
}

// quantity reads a Kubernetes quantity such as "512Mi", "0.5" or "500m".
func quantity(s string) (*big.Rat, error) {
	bad := fault.New(fault.InvalidArgument, "%.40q is not a quantity such as 512Mi, 1 or 500m", s)
	num, den := int64(1), int64(1)
	digits := s
	for _, x := range suffixes {
		if strings.HasSuffix(s, x.text) {
			digits, num, den = strings.TrimSuffix(s, x.text), x.num, x.den
			break
		}
	}
	if digits == "" || len(digits) > 18 || strings.Trim(digits, "0123456789.") != "" {
		return nil, bad
	}
	r, ok := new(big.Rat).SetString(digits)
	if !ok {
		return nil, bad
	}
	return r.Mul(r, big.NewRat(num, den)), nil
}

// Bytes reads a quantity of memory and returns bytes, rounded up. "" is 0.
func Bytes(s string) (int64, error) { return whole(s, 1) }

// MilliCPU reads a quantity of CPU and returns thousandths of a core, rounded up. "" is 0.
func MilliCPU(s string) (int64, error) { return whole(s, 1000) }

func whole(s string, unit int64) (int64, error) {
	if s == "" {
		return 0, nil
	}
	r, err := quantity(s)
	if err != nil {
		return 0, err
	}
	r.Mul(r, big.NewRat(unit, 1))
	n := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	n.Quo(n, r.Denom())
	if !n.IsInt64() {
		return 0, fault.New(fault.InvalidArgument, "%.40q is too large", s)
	}
	return n.Int64(), nil
}
