package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"giggle/logging"
)

// entryBefore is an entry as the versions before read and wrote it, when the audit log had a type of its own.
type entryBefore struct {
	LogName  string `json:"logName"`
	Resource struct {
		Type   string            `json:"type"`
		Labels map[string]string `json:"labels"`
	} `json:"resource"`
	Timestamp time.Time         `json:"timestamp"`
	Severity  string            `json:"severity"`
	InsertID  string            `json:"insertId"`
	Labels    map[string]string `json:"labels,omitempty"`
	Payload   Payload           `json:"protoPayload"`
}

func before(t *testing.T, line []byte) entryBefore {
	t.Helper()
	var out entryBefore
	in := json.NewDecoder(bytes.NewReader(line))
	in.DisallowUnknownFields()
	if err := in.Decode(&out); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out
}

// The files in testdata were written by a version before. They are read as what they are, and what is written now is
// read by that version, when somebody goes back to it.
func TestFilesOfTheVersionBefore(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, 0)
	got, err := read(t, l, logging.Filter{})
	if err != nil || ids(got) != "r1 r2 r3 r4 r5 r6" {
		t.Fatalf("read %s, %v", ids(got), err)
	}
	lines := make(map[string][]byte)
	files, err := filepath.Glob("testdata/*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			lines[before(t, line).InsertID] = line
		}
	}
	for _, e := range got {
		old, p := before(t, lines[e.ID]), payload(t, &e)
		if d := cmp.Diff(old.Payload, p); d != "" ||
			e.Log != "cloudaudit.googleapis.com/"+activity && e.Log != "cloudaudit.googleapis.com/"+dataAccess {
			t.Errorf("%s of %s: %s", e.ID, e.Log, d)
		}
		line, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(old, before(t, line)); d != "" {
			t.Errorf("%s is written otherwise than it was: %s", e.ID, d)
		}
		if len(line) != len(lines[e.ID]) {
			t.Errorf("%s takes %d bytes, and took %d", e.ID, len(line), len(lines[e.ID]))
		}
	}
	if got, err := read(t, l, logging.Filter{Match: Calls{Refused: true}.Match, Project: "giggle"}); err != nil ||
		ids(got) != "r3 r5 r6" {
		t.Errorf("refused are %s, %v", ids(got), err)
	}
}

func payload(t *testing.T, e *logging.Entry) Payload {
	t.Helper()
	p, err := PayloadOf(e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPayloadOfAnotherEntry(t *testing.T) {
	for _, e := range []logging.Entry{{
		Text: "knock",
	}, {Proto: json.RawMessage(`{"@type":"type.googleapis.com/google.type.Expr"}`)}} {
		if p, err := PayloadOf(&e); err == nil || (Calls{}).Match(&e) {
			t.Errorf("%+v is of a call: %+v", e, p)
		}
	}
}
