package main

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestProgress(t *testing.T) {
	var out strings.Builder
	r := &progress{Reader: iotest.OneByteReader(strings.NewReader("12345678")), out: &out, size: 8}
	b, err := io.ReadAll(r)
	if err != nil || string(b) != "12345678" {
		t.Errorf("%q, %v", b, err)
	}
	if got := out.String(); !strings.HasPrefix(got, "\r 12 %\r 25 %") || !strings.HasSuffix(got, "\r100 %\r\x1b[K") {
		t.Errorf("%q", got)
	}
}
