package engine

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// probeCode is what the probe exits with: nothing else is likely to.
const probeCode = 71

// probeText is the machine code of exit(probeCode) for each architecture.
var probeText = map[string][]byte{
	"amd64": {0xb8, 60, 0, 0, 0 /* mov eax, SYS_exit */, 0xbf, probeCode, 0, 0, 0 /* mov edi, code */, 0x0f, 0x05 /* syscall */},
	"arm64": {
		0xe0, 0x08, 0x80, 0xd2, // mov x0, #71
		0xa8, 0x0b, 0x80, 0xd2, // mov x8, #93 (exit)
		0x01, 0x00, 0x00, 0xd4, // svc #0
	},
}

// writeProbe makes a layer that holds the least program there is, so that a runtime can be tried with nothing
// installed.
func writeProbe(layer string) error {
	text, ok := probeText[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("no probe for %s", runtime.GOARCH)
	}
	if err := os.MkdirAll(layer, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(layer, "probe"), elf(text), 0o755)
}

// elf wraps machine code into an ELF-64 executable with one segment (System V ABI, chapters 4 and 5).
func elf(text []byte) []byte {
	const base, header, program = 0x400000, 64, 56
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	size := uint64(header + program + len(text))
	le := binary.LittleEndian

	b := []byte{0x7f, 'E', 'L', 'F', 2 /* 64 bit */, 1 /* little-endian */, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header+program) // entry
	b = le.AppendUint64(b, header)              // program headers
	b = le.AppendUint64(b, 0)                   // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, program, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}

	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // readable, executable
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, text...)
}
