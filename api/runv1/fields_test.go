package runv1

import (
	"strings"
	"testing"

	"giggle/run"
)

// Every field of the model has a name of this API, and that name is one of a field that it reads.
func TestFieldNames(t *testing.T) {
	all := run.Fields()
	for _, f := range all {
		name, ok := fieldNames[f]
		if !ok {
			t.Errorf("%s has no name", f)
			continue
		}
		path, key, annotation := strings.Cut(name, ".annotations[")
		if annotation {
			path += ".annotations"
			kind := "Service"
			if strings.HasPrefix(path, "spec.template") {
				kind = "Revision"
			}
			if a := annotations[strings.TrimSuffix(key, "]")]; !a.on(kind) || a.does != honoured {
				t.Errorf("%s: there is no annotation %s", f, key)
			}
		}
		path = strings.NewReplacer("[0]", "[]", "[nvidia.com/gpu]", "", "limits.cpu", "limits", "limits.memory",
			"limits", "node_selector", "nodeSelector").Replace(path)
		if d, known := serviceFields[strings.TrimSuffix(path, "[]")]; !known || d == refused {
			t.Errorf("%s: there is no field %s", f, name)
		}
	}
	if len(fieldNames) != len(all) {
		t.Errorf("%d names for %d fields", len(fieldNames), len(all))
	}
}
