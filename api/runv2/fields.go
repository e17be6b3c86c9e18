package runv2

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"giggle/fault"
)

// output are the fields of a Service that the platform writes; what a client sends in them is ignored.
var output = []string{
	"uid", "generation", "createTime", "updateTime", "deleteTime", "expireTime", "creator", "lastModifier", "urls", "observedGeneration",
	"terminalCondition", "conditions", "latestReadyRevision", "latestCreatedRevision", "trafficStatuses", "uri", "satisfiesPzs", "reconciling", "threatDetectionEnabled",
}

// overlay copies the fields that a mask names from one message to another of its kind
// (https://google.aip.dev/134: a field that is named and not set is cleared).
func overlay(to, from proto.Message, paths []string) error {
	for _, path := range paths {
		if path == "*" {
			name := to.ProtoReflect().Descriptor().Fields().ByName("name")
			kept := to.ProtoReflect().Get(name)
			proto.Reset(to)
			proto.Merge(to, from)
			to.ProtoReflect().Set(name, kept)
			continue
		}
		if err := copyField(to.ProtoReflect(), from.ProtoReflect(), strings.Split(path, ".")); err != nil {
			return fault.Invalid("updateMask", "%.100q: %v", path, err)
		}
	}
	return nil
}

func copyField(to, from protoreflect.Message, path []string) error {
	f := to.Descriptor().Fields().ByName(protoreflect.Name(path[0]))
	if f == nil {
		f = to.Descriptor().Fields().ByJSONName(path[0])
	}
	switch {
	case f == nil:
		return errors.New("there is no such field")
	case len(path) == 1 && !from.Has(f):
		to.Clear(f)
		return nil
	case len(path) == 1:
		to.Set(f, from.Get(f))
		return nil
	case f.Message() == nil || f.IsList() || f.IsMap():
		return errors.New("what is below a list, a map or a value can't be named")
	}
	return copyField(to.Mutable(f).Message(), from.Get(f).Message(), path[1:])
}

// paths lead from the fields of v1, by which package run names what is wrong, to v2's.
var paths = []struct {
	v1 *regexp.Regexp
	v2 string
}{
	{regexp.MustCompile(`^spec\.template\.spec\.timeoutSeconds`), "template.timeout"},
	{regexp.MustCompile(`^spec\.template\.spec\.containerConcurrency`), "template.maxInstanceRequestConcurrency"},
	{regexp.MustCompile(`^spec\.template\.spec\.serviceAccountName`), "template.serviceAccount"},
	{regexp.MustCompile(`^spec\.template\.spec\.node_?[sS]elector`), "template.nodeSelector.accelerator"},
	{regexp.MustCompile(`^spec\.template\.metadata\.annotations\[run\.googleapis\.com/cpu-throttling\]`), "template.containers[0].resources.cpuIdle"},
	{regexp.MustCompile(`^spec\.template\.spec\.`), "template."},
	{regexp.MustCompile(`^spec\.template\.metadata\.name`), "template.revision"},
	{regexp.MustCompile(`^spec\.template\.metadata\.annotations\[autoscaling\.knative\.dev/maxScale\]`), "template.scaling.maxInstanceCount"},
	{regexp.MustCompile(`^spec\.template\.metadata\.annotations\[autoscaling\.knative\.dev/minScale\]`), "template.scaling.minInstanceCount"},
	{regexp.MustCompile(`^spec\.template\.metadata\.annotations\[run\.googleapis\.com/execution-environment\]`), "template.executionEnvironment"},
	{regexp.MustCompile(`^metadata\.annotations\[run\.googleapis\.com/maxScale\]`), "scaling.maxInstanceCount"},
	{regexp.MustCompile(`^metadata\.annotations\[run\.googleapis\.com/minScale\]`), "scaling.minInstanceCount"},
	{regexp.MustCompile(`^spec\.traffic\[(\d+)\]\.revisionName`), "traffic[$1].revision"},
	{regexp.MustCompile(`^spec\.traffic`), "traffic"},
	{regexp.MustCompile(`^metadata\.name`), "serviceId"},
}

// inV2 names the fields of an error as v2 does.
func inV2(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) || len(f.Fields) == 0 {
		return err
	}
	out := *f
	out.Fields = slices.Clone(f.Fields)
	for i := range out.Fields {
		for _, p := range paths {
			if p.v1.MatchString(out.Fields[i].Path) {
				was := out.Fields[i].Path
				out.Fields[i].Path = p.v1.ReplaceAllString(was, p.v2)
				if rest, ok := strings.CutPrefix(out.Message, was); ok {
					out.Message = out.Fields[i].Path + rest
				}
				break
			}
		}
	}
	return &out
}
