package runv2_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// latest is the name of the one operation that there is.
func latest(t *testing.T, call func(method, path, body string) string, path string) string {
	t.Helper()
	var list struct {
		Operations []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(call("GET", path, "")), &list); err != nil || len(list.Operations) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	return list.Operations[0].Name
}

// flat is JSON without its white space.
func flat(s string) string { return strings.NewReplacer("\n", "", " ", "").Replace(s) }
