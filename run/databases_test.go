package run_test

import (
	"fmt"
	"strings"
	"testing"

	"giggle/fault"
	"giggle/resource"
	"giggle/run"
	"giggle/store"
)

// databases are those that there are.
type databases map[string]bool

func (d databases) Check(_ *store.Tx, name string) error {
	if !d[name] {
		return fault.New(fault.FailedPrecondition, "%s leads nowhere.", name)
	}
	return nil
}

// A new revision's databases must be there; what changes no revision goes through without them.
func TestDatabases(t *testing.T) {
	w := newWorld(t)
	have := databases{"giggle:europe-north1:jokes": true}
	cfg := w.cfg
	cfg.Databases = have
	services := run.NewServices(cfg)
	want := run.Service{
		Name: resource.Service("giggle", "europe-north1", "teller"),
		Template: run.Template{
			Containers: []run.Container{{Image: "x"}},
			CloudSQL:   run.CloudSQL{Instances: []string{"giggle:europe-north1:other"}},
		},
	}
	if _, err := services.Create(t.Context(), want, who); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("with a database that leads nowhere: %v", err)
	}
	want.Template.CloudSQL.Instances = []string{"giggle:europe-north1:jokes"}
	made, err := services.Create(t.Context(), want, who)
	if err != nil {
		t.Fatal(err)
	}
	delete(have, "giggle:europe-north1:jokes")
	made.Description = "tells jokes"
	made, err = services.Replace(t.Context(), made, who)
	if err != nil {
		t.Errorf("a change that makes no revision: %v", err)
	}
	made.Template.Concurrency = 9
	if _, err := services.Replace(t.Context(), made, who); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a new revision with a database that is gone: %v", err)
	}
}

func TestDatabaseNames(t *testing.T) {
	many := make([]string, 21)
	for i := range many {
		many[i] = fmt.Sprintf("giggle:europe-north1:n%d", i)
	}
	for _, names := range [][]string{{"jokes"}, {"giggle:mars:jokes"}, {"a:europe-north1:jokes"}, {""},
		{"giggle:europe-north1:../jokes"}, {"giggle:europe-north1:jokes", "giggle:europe-north1:jokes"}, many} {
		s := run.Service{
			Name: resource.Service("giggle", "europe-north1", "teller"),
			Template: run.Template{
				Containers: []run.Container{{Image: "x"}},
				CloudSQL:   run.CloudSQL{Instances: names},
			},
		}
		if err := s.Validate(); !fault.Is(err, fault.InvalidArgument) ||
			!strings.Contains(err.Error(), string(run.FieldCloudSQL)) {
			t.Errorf("%q: %v", names, err)
		}
	}
}
