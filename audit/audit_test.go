package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/fault"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Microsecond)
	return c.at
}

func open(t *testing.T, dir string, segment int64) *Log {
	t.Helper()
	c := &clock{at: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	l, err := Open(Config{Dir: dir, Now: c.now, Segment: segment})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func event(id string) Event {
	return Event{
		RequestID: id, Service: "run.googleapis.com", Method: "/google.cloud.run.v1.Services/CreateService", Project: "giggle",
		Resource: "projects/giggle/locations/europe-north1/services/jokes", Permission: "run.services.create",
		Member: "user:you@giggle.test", Caller: "127.0.0.1", UserAgent: "gcloud",
	}
}

func record(t *testing.T, l *Log, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
}

func ids(entries []Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.InsertID)
	}
	return strings.Join(out, " ")
}

func TestEntryHasTheFormOfCloudAuditLogs(t *testing.T) {
	refused := event("r2")
	refused.Code, refused.Message = int32(fault.PermissionDenied), "Permission denied."
	for _, c := range []struct {
		event Event
		want  string
	}{
		{event("r1"), `{"logName":"projects/giggle/logs/cloudaudit.googleapis.com%2Factivity","resource":{"type":"audited_resource","labels":{"method":"google.cloud.run.v1.Services.CreateService","project_id":"giggle","service":"run.googleapis.com"}},"timestamp":"2026-11-24T12:00:00Z","severity":"NOTICE","insertId":"r1","protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"run.googleapis.com","methodName":"google.cloud.run.v1.Services.CreateService","resourceName":"projects/giggle/locations/europe-north1/services/jokes","authenticationInfo":{"principalEmail":"you@giggle.test","principalSubject":"user:you@giggle.test"},"authorizationInfo":[{"resource":"projects/giggle/locations/europe-north1/services/jokes","permission":"run.services.create","granted":true}],"requestMetadata":{"callerIp":"127.0.0.1","callerSuppliedUserAgent":"gcloud"},"status":{}}}`},
		{refused, `{"logName":"projects/giggle/logs/cloudaudit.googleapis.com%2Factivity","resource":{"type":"audited_resource","labels":{"method":"google.cloud.run.v1.Services.CreateService","project_id":"giggle","service":"run.googleapis.com"}},"timestamp":"2026-11-24T12:00:00Z","severity":"ERROR","insertId":"r2","protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"run.googleapis.com","methodName":"google.cloud.run.v1.Services.CreateService","resourceName":"projects/giggle/locations/europe-north1/services/jokes","authenticationInfo":{"principalEmail":"you@giggle.test","principalSubject":"user:you@giggle.test"},"authorizationInfo":[{"resource":"projects/giggle/locations/europe-north1/services/jokes","permission":"run.services.create","granted":false}],"requestMetadata":{"callerIp":"127.0.0.1","callerSuppliedUserAgent":"gcloud"},"status":{"code":7,"message":"Permission denied."}}}`},
	} {
		got, err := json.Marshal(c.event.entry(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want {
			t.Errorf("entry is\n%s, want\n%s", got, c.want)
		}
	}
}

func TestReadFilters(t *testing.T) {
	l := open(t, t.TempDir(), 0)
	other, refused, data := event("r2"), event("r3"), event("r4")
	other.Project, other.Member = "another", "serviceAccount:bot@another.iam.gserviceaccount.com"
	refused.Code = int32(fault.PermissionDenied)
	data.Data, data.Method = true, "storage.objects.insert"
	record(t, l, event("r1"), other, refused, data)
	for name, c := range map[string]struct {
		filter Filter
		want   string
	}{
		"all":       {Filter{}, "r1 r2 r3 r4"},
		"project":   {Filter{Project: "another"}, "r2"},
		"principal": {Filter{Principal: "bot@another.iam.gserviceaccount.com"}, "r2"},
		"member":    {Filter{Principal: "user:you@giggle.test"}, "r1 r3 r4"},
		"method":    {Filter{Method: "OBJECTS.insert"}, "r4"},
		"request":   {Filter{RequestID: "r3"}, "r3"},
		"refused":   {Filter{Refused: true}, "r3"},
		"limit":     {Filter{Limit: 2}, "r3 r4"},
	} {
		got, err := l.Read(c.filter)
		if err != nil {
			t.Fatal(err)
		}
		if ids(got) != c.want {
			t.Errorf("%s: %s, want %s", name, ids(got), c.want)
		}
	}
}

// What Record returned for is there after a crash, and what it was writing then is not.
func TestHalfALineIsCutOffAtOpen(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 0)
	record(t, l, event("r1"))
	f, err := os.OpenFile(filepath.Join(dir, "activity-000001.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"insertId":"r2","proto` + strings.Repeat("x", 200<<10)); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	l = open(t, dir, 0)
	record(t, l, event("r3"))
	got, err := l.Read(Filter{})
	if err != nil || ids(got) != "r1 r3" {
		t.Errorf("read %s (%v), want r1 r3", ids(got), err)
	}
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1) // each entry fills a file
	for i := range 40 {
		record(t, l, event(fmt.Sprintf("r%d", i)))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "activity-*"))
	if len(files) != kept[activity] {
		t.Errorf("%d files are kept, want %d", len(files), kept[activity])
	}
	got, err := l.Read(Filter{Limit: 3})
	if err != nil || ids(got) != "r37 r38 r39" {
		t.Errorf("the newest are %s (%v), want r37 r38 r39", ids(got), err)
	}
	l = open(t, dir, 1)
	record(t, l, event("again"))
	if got, err = l.Read(Filter{Limit: 2}); err != nil || ids(got) != "again r39" && ids(got) != "r39 again" {
		t.Errorf("after opening again the newest are %s (%v)", ids(got), err)
	}
}

// A flood of calls without an identity neither fills the disk nor pushes out what identities did.
func TestNobodysCallsAreBounded(t *testing.T) {
	l := open(t, t.TempDir(), 0)
	nobody := event("n")
	nobody.Member, nobody.Code = "", int32(fault.Unauthenticated)
	record(t, l, event("r1"))
	for range 10 * nobodys {
		record(t, l, nobody)
	}
	got, err := l.Read(Filter{})
	if err != nil || len(got) != nobodys+1 {
		t.Fatalf("%d entries (%v), want %d", len(got), err, nobodys+1)
	}
	l.second = 0 // the next second
	record(t, l, nobody)
	got, _ = l.Read(Filter{Refused: true})
	if last := got[len(got)-1]; last.Labels["giggle.dev/omitted"] != fmt.Sprint(9*nobodys) {
		t.Errorf("the next entry says %v were left out, want %d", last.Labels, 9*nobodys)
	}
	if !strings.HasSuffix(got[0].LogName, "data_access") {
		t.Errorf("nobody's calls are in %s", got[0].LogName)
	}
}

func TestTextsAreBounded(t *testing.T) {
	e := event("r1")
	e.UserAgent, e.Message, e.Resource = strings.Repeat("u", 1<<20), "\xff\x00"+strings.Repeat("m", 1<<20), strings.Repeat("r", 1<<20)
	line, err := json.Marshal(e.entry(time.Now()))
	if err != nil || len(line) > 8<<10 {
		t.Errorf("an entry of %d bytes (%v)", len(line), err)
	}
}

func TestFollow(t *testing.T) {
	l := open(t, t.TempDir(), 0)
	record(t, l, event("r1"), event("r2"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []string
	for e, err := range l.Follow(ctx, Filter{Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.InsertID); e.InsertID == "r2" {
			record(t, l, event("r3"))
		}
		if e.InsertID == "r3" {
			break
		}
	}
	if strings.Join(got, " ") != "r2 r3" {
		t.Errorf("followed %v, want r2 r3", got)
	}
	if len(l.subscribers) != 0 {
		t.Error("a reader that left is still subscribed")
	}
}

func TestSlowReaderIsTold(t *testing.T) {
	l := open(t, t.TempDir(), 0)
	record(t, l, event("first"))
	var last error
	for e, err := range l.Follow(t.Context(), Filter{}) {
		if last = err; e.InsertID == "first" {
			for i := range backlog + 1 {
				record(t, l, event(fmt.Sprint(i)))
			}
		}
	}
	if !fault.Is(last, fault.ResourceExhausted) {
		t.Errorf("a reader that lost entries got %v, want ResourceExhausted", last)
	}
}

func TestConcurrentWriters(t *testing.T) {
	l := open(t, t.TempDir(), 4<<10) // files turn over meanwhile
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 5 {
				if err := l.Record(event(fmt.Sprintf("%d-%d", w, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := l.Read(Filter{})
	seen := make(map[string]bool)
	for _, e := range got {
		seen[e.InsertID] = true
	}
	if err != nil || len(seen) != 100 || len(got) != 100 {
		t.Errorf("%d entries of %d calls (%v), want 100", len(got), len(seen), err)
	}
}

func TestAfterCloseRecordFails(t *testing.T) {
	l := open(t, t.TempDir(), 0)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(event("r1")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}
