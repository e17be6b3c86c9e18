package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"giggle/fault"
	"giggle/logging"
	"giggle/store"
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
		RequestID:  id,
		Service:    "run.googleapis.com",
		Method:     "/google.cloud.run.v1.Services/CreateService",
		Project:    "giggle",
		Resource:   "projects/giggle/locations/europe-north1/services/jokes",
		Permission: "run.services.create",
		Member:     "user:you@giggle.test",
		Caller:     "127.0.0.1",
		UserAgent:  "gcloud",
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

func ids(entries []logging.Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

func read(t *testing.T, l *Log, f logging.Filter) ([]logging.Entry, error) {
	t.Helper()
	return logging.Collect(l.Read(t.Context(), f))
}

func TestEntryHasTheFormOfCloudAuditLogs(t *testing.T) {
	refused := event("r2")
	refused.Code, refused.Message = int32(fault.PermissionDenied), "Permission denied."
	for _, c := range []struct {
		event Event
		want  string
	}{
		{event("r1"), `{"insertId":"r1","logName":"projects/giggle/logs/cloudaudit.googleapis.com%2Factivity","timestamp":"2026-11-24T12:00:00Z","severity":"NOTICE","resource":{"type":"audited_resource","labels":{"method":"google.cloud.run.v1.Services.CreateService","project_id":"giggle","service":"run.googleapis.com"}},"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"run.googleapis.com","methodName":"google.cloud.run.v1.Services.CreateService","resourceName":"projects/giggle/locations/europe-north1/services/jokes","authenticationInfo":{"principalEmail":"you@giggle.test","principalSubject":"user:you@giggle.test"},"authorizationInfo":[{"resource":"projects/giggle/locations/europe-north1/services/jokes","permission":"run.services.create","granted":true}],"requestMetadata":{"callerIp":"127.0.0.1","callerSuppliedUserAgent":"gcloud"},"status":{}}}`},
		{refused, `{"insertId":"r2","logName":"projects/giggle/logs/cloudaudit.googleapis.com%2Factivity","timestamp":"2026-11-24T12:00:00Z","severity":"ERROR","resource":{"type":"audited_resource","labels":{"method":"google.cloud.run.v1.Services.CreateService","project_id":"giggle","service":"run.googleapis.com"}},"protoPayload":{"@type":"type.googleapis.com/google.cloud.audit.AuditLog","serviceName":"run.googleapis.com","methodName":"google.cloud.run.v1.Services.CreateService","resourceName":"projects/giggle/locations/europe-north1/services/jokes","authenticationInfo":{"principalEmail":"you@giggle.test","principalSubject":"user:you@giggle.test"},"authorizationInfo":[{"resource":"projects/giggle/locations/europe-north1/services/jokes","permission":"run.services.create","granted":false}],"requestMetadata":{"callerIp":"127.0.0.1","callerSuppliedUserAgent":"gcloud"},"status":{"code":7,"message":"Permission denied."}}}`},
	} {
		e, err := c.event.entry(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(e)
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
		filter logging.Filter
		want   string
	}{
		"all":       {logging.Filter{}, "r1 r2 r3 r4"},
		"project":   {logging.Filter{Project: "another"}, "r2"},
		"principal": {logging.Filter{Match: Calls{Principal: "bot@another.iam.gserviceaccount.com"}.Match}, "r2"},
		"member":    {logging.Filter{Match: Calls{Principal: "user:you@giggle.test"}.Match}, "r1 r3 r4"},
		"method":    {logging.Filter{Match: Calls{Method: "OBJECTS.insert"}.Match}, "r4"},
		"request":   {logging.Filter{ID: "r3"}, "r3"},
		"refused":   {logging.Filter{Match: Calls{Refused: true}.Match}, "r3"},
		"limit":     {logging.Filter{Limit: 2}, "r3 r4"},
	} {
		got, err := read(t, l, c.filter)
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
	got, err := read(t, l, logging.Filter{})
	if err != nil || ids(got) != "r1 r3" {
		t.Errorf("read %s (%v), want r1 r3", ids(got), err)
	}
}

func TestOldFilesGo(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1) // each entry fills a file
	data := func(id string) Event {
		e := event(id)
		e.Data = true
		return e
	}
	for i := range 40 {
		record(t, l, data(fmt.Sprintf("r%d", i)))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "data_access-*"))
	if len(files) != kept[dataAccess].files {
		t.Errorf("%d files are kept, want %d", len(files), kept[dataAccess].files)
	}
	got, err := read(t, l, logging.Filter{Limit: 3})
	if err != nil || ids(got) != "r37 r38 r39" {
		t.Errorf("the newest are %s (%v), want r37 r38 r39", ids(got), err)
	}
	l = open(t, dir, 1)
	record(t, l, data("again"))
	if got, err = read(t, l, logging.Filter{Limit: 2}); err != nil ||
		ids(got) != "again r39" && ids(got) != "r39 again" {
		t.Errorf("after opening again the newest are %s (%v)", ids(got), err)
	}
}

// What was done stays until it is old, however much it is.
func TestActivityGoesByAge(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 1)
	for i := range 40 {
		record(t, l, event(fmt.Sprintf("r%d", i)))
	}
	if got, err := read(t, l, logging.Filter{}); err != nil || len(got) != 40 {
		t.Fatalf("%d of 40 entries are kept (%v)", len(got), err)
	}
	old := l.cfg.Now().Add(-kept[activity].age - time.Hour)
	for i := 1; i <= 5; i++ {
		if err := os.Chtimes(l.streams[activity].path(i), old, old); err != nil {
			t.Fatal(err)
		}
	}
	record(t, l, event("last"))
	if got, err := read(t, l, logging.Filter{}); err != nil || len(got) != 36 || got[0].ID != "r5" {
		t.Errorf("%d entries are kept (%v), want those that aren't old", len(got), err)
	}
}

// However young they are, the entries of what was done take no more than they may: the oldest go, the newest stay, also
// when less is allowed than was.
func TestActivityIsBounded(t *testing.T) {
	const segment = 4 << 10
	dir := t.TempDir()
	size := func() (sum int64, files int) {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(dir, activity+"-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			st, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			sum += st.Size()
		}
		return sum, len(all)
	}
	n := 0
	for _, most := range []int64{0, 10 * segment, 4 * segment} {
		l, err := Open(Config{Dir: dir, Now: time.Now, Segment: segment, Most: most})
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			n++
			record(t, l, event(fmt.Sprintf("r%d.", n)))
			got, files := size()
			if bound := most + 1<<10; most > 0 && got > bound { // the line that ends a file
				t.Fatalf("%d bytes in %d files, of %d", got, files, most)
			}
			if most >= 2*segment && got < most-2*segment-1<<10 {
				t.Fatalf("only %d bytes in %d files are left of %d", got, files, most)
			}
		}
		entries, err := read(t, l, logging.Filter{})
		if err != nil || len(entries) == 0 || entries[len(entries)-1].ID != fmt.Sprintf("r%d.", n) {
			t.Errorf("of %d entries are left %d, %v; the newest must be", n, len(entries), err)
		}
		if most == 0 && len(entries) != n {
			t.Errorf("of %d entries are left %d although all may stay", n, len(entries))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A flood of refused calls, authenticated or not, neither fills the disk nor pushes out what was done.
func TestRefusalsAreBounded(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, 4<<10)
	l.second = time.Now().Unix()
	record(t, l, event("r1"))
	for _, member := range []string{"", "user:stranger@giggle.test"} {
		e := event("n")
		e.Member, e.Code = member, codePermissionDenied
		before, err := read(t, l, logging.Filter{Match: Calls{Refused: true}.Match})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 * refusedOfOne {
			e.UserAgent, e.Message, e.Resource = strings.Repeat("<\x01", 9000), strings.Repeat("m",
				9000), strings.Repeat("r", 9000)
			record(t, l, e)
		}
		after, err := read(t, l, logging.Filter{Match: Calls{Refused: true}.Match})
		if n := len(after) - len(before); err != nil || n > 2*refusedOfOne { // a second may have begun in between
			t.Errorf("%d refusals of %q are kept (%v), want at most %d a second", n, member, err, refusedOfOne)
		}
		l.mu.Lock()
		l.second = 0 // the next second
		l.mu.Unlock()
		record(t, l, e)
		after, _ = read(t, l, logging.Filter{Match: Calls{Refused: true}.Match})
		if last := after[len(after)-1]; last.Labels["giggle.dev/omitted"] == "" {
			t.Errorf("the next entry of %q says nothing of those that were left out", member)
		}
		if line, err := encode(after[len(after)-1]); err != nil || len(line) > 3<<10 {
			t.Errorf("a refusal takes %d bytes (%v)", len(line), err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "refused-*"))
	if len(files) > kept[refused].files {
		t.Errorf("%d files of refusals are kept", len(files))
	}
	if got, err := read(t, l, logging.Filter{Match: Calls{Principal: "you@giggle.test"}.Match}); err != nil ||
		len(got) != 1 {
		t.Errorf("of what was done %d entries are left (%v)", len(got), err)
	}
}

// A change and its entry are there together, or neither is: the platform may be killed at any moment in between.
func TestChangesHaveTheirEntry(t *testing.T) {
	dir := t.TempDir()
	things := store.NewTable[string]("test.thing", "Thing")
	start := func() (*store.Store, *Log) {
		st, err := store.Open(t.Context(), filepath.Join(dir, "state.db"), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(Config{Dir: filepath.Join(dir, "audit"), Now: time.Now, Journal: st})
		if err != nil {
			t.Fatal(err)
		}
		return st, l
	}
	change := func(ctx context.Context, st *store.Store, name string, fail error) {
		err := st.Update(ctx, func(tx *store.Tx) error {
			if _, err := things.Put(tx, name, "x"); err != nil {
				return err
			}
			return fail
		})
		if err != fail { //nolint:errorlint // it is the same
			t.Fatal(err)
		}
	}
	st, l := start()
	for id, ends := range map[string]bool{"killed": false, "ended": true} {
		ctx, p := l.Begin(t.Context(), event(id))
		change(ctx, st, "thing-of-"+id, nil)
		if ends {
			if err := p.End(event(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, _ := l.Begin(t.Context(), event("undone"))
	change(ctx, st, "thing-of-undone", errors.New("it failed"))
	ctx, _ = l.Begin(t.Context(), event("read"))
	if err := st.Update(ctx, func(*store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for range 3 { // once is enough, however often the platform starts
		if err := errors.Join(l.Close(), st.Close()); err != nil {
			t.Fatal(err)
		}
		st, l = start()
	}
	got, err := read(t, l, logging.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range got {
		m := payload(t, &e).Metadata
		if m == nil || len(m.Changed) != 1 || m.Changed[0] != "test.thing thing-of-"+e.ID {
			t.Errorf("the entry %s says that %+v was changed", e.ID, m)
		}
		have = append(have, e.ID)
	}
	slices.Sort(have)
	if !slices.Equal(have, []string{"ended", "killed"}) {
		t.Errorf("the log has %v", have)
	}
	if lines, err := st.Journal(t.Context()); err != nil || len(lines) != 0 {
		t.Errorf("the journal keeps %d lines (%v)", len(lines), err)
	}
	if err := errors.Join(l.Close(), st.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestTextsAreBounded(t *testing.T) {
	e := event("r1")
	e.UserAgent, e.Message, e.Resource = strings.Repeat("u", 1<<20), "\xff\x00"+
		strings.Repeat("m", 1<<20), strings.Repeat("r", 1<<20)
	entry, err := e.entry(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	line, err := encode(entry)
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
	for e, err := range l.Follow(ctx, logging.Filter{Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e.ID); e.ID == "r2" {
			record(t, l, event("r3"))
		}
		if e.ID == "r3" {
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
	for e, err := range l.Follow(t.Context(), logging.Filter{}) {
		if last = err; e.ID == "first" {
			for i := range maxFollowBacklog + 1 {
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
	got, err := read(t, l, logging.Filter{})
	seen := make(map[string]bool)
	for _, e := range got {
		seen[e.ID] = true
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
