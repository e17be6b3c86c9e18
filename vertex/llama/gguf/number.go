package gguf

import (
	"encoding/binary"
	"math"
)

// Half returns the float32 of a number of IEEE 754 binary16.
func Half(h uint16) float32 {
	sign, rest := uint32(h>>15)<<31, uint32(h&0x7fff)
	if rest >= 0x7c00 { // infinite, or not a number
		return math.Float32frombits(sign | 0xff<<23 | rest<<13)
	}
	// Read with binary32's exponent, of which 127 stands for 0 and not 15: too small by 2^112, also where there is no
	// leading one. The product is exact.
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(rest<<13)*0x1p112))
}

// ToHalf rounds to the nearest number of binary16, to the even one of two.
func ToHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign, abs := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case abs > 0x7f800000: // not a number
		return sign | 0x7e00
	case abs >= 0x477ff000: // rounds to infinity
		return sign | 0x7c00
	case abs < 0x38800000: // below the smallest normal one
		v := math.RoundToEven(float64(math.Float32frombits(abs)) * (1 << 24))
		return sign | uint16(v)
	}
	abs += 0xfff + abs>>13&1
	return sign | uint16((abs-0x38000000)>>13)
}

// Encode writes a tensor's numbers in the given type. Rows of Q8_0 must be whole blocks.
func Encode(t Type, numbers []float32) []byte {
	var out []byte
	switch t {
	case F32:
		for _, v := range numbers {
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		}
	case F16:
		for _, v := range numbers {
			out = binary.LittleEndian.AppendUint16(out, ToHalf(v))
		}
	case Q8_0:
		for ; len(numbers) >= BlockLength; numbers = numbers[BlockLength:] {
			out = appendBlock(out, numbers[:BlockLength])
		}
	}
	return out
}

// appendBlock writes a block of Q8_0 as ggml does: the largest number becomes 127 or -127.
func appendBlock(out []byte, numbers []float32) []byte {
	var top float32
	for _, v := range numbers {
		top = max(top, float32(math.Abs(float64(v))))
	}
	scale := top / 127
	out = binary.LittleEndian.AppendUint16(out, ToHalf(scale))
	for _, v := range numbers {
		var q float64
		if scale != 0 {
			q = math.Round(float64(v * (1 / scale)))
		}
		out = append(out, byte(int8(q)))
	}
	return out
}

// Decode reads numbers of the given type: as many as there are places in out.
func Decode(out []float32, t Type, data []byte) {
	switch t {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[i*4:]))
		}
	case F16:
		for i := range out {
			out[i] = Half(binary.LittleEndian.Uint16(data[i*2:]))
		}
	case Q8_0:
		for i := range out {
			b := data[i/BlockLength*BlockSize:]
			out[i] = Half(binary.LittleEndian.Uint16(b)) * float32(int8(b[2+i%BlockLength]))
		}
	}
}
