package runv2

import (
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/run/apiv2/runpb"
	"google.golang.org/protobuf/proto"

	"giggle/resource"
	"giggle/run"
)

func volume(name string, instances ...string) *runpb.Volume {
	return &runpb.Volume{
		Name:       name,
		VolumeType: &runpb.Volume_CloudSqlInstance{CloudSqlInstance: &runpb.CloudSqlInstance{Instances: instances}},
	}
}

func with(volumes []*runpb.Volume, mounts ...*runpb.VolumeMount) *runpb.RevisionTemplate {
	return &runpb.RevisionTemplate{
		Volumes:    volumes,
		Containers: []*runpb.Container{{Image: "x", VolumeMounts: mounts}},
	}
}

// The volume of databases comes back as it was, and is the one that the API v1 writes as an annotation.
func TestDatabases(t *testing.T) {
	const jokes, shop = "giggle:europe-north1:jokes", "giggle:europe-north1:shop"
	for _, name := range []string{"cloudsql", "mine"} {
		given := with([]*runpb.Volume{volume(name, jokes, shop)}, &runpb.VolumeMount{Name: name, MountPath: "/cloudsql"})
		read, err := templateFromProto(given)
		if err != nil || !slices.Equal(read.CloudSQL.Instances, []string{jokes, shop}) {
			t.Fatalf("read %+v, %v", read.CloudSQL, err)
		}
		wrote := templateToProto(&read)
		if !proto.Equal(wrote.GetVolumes()[0], given.GetVolumes()[0]) ||
			!proto.Equal(wrote.GetContainers()[0].GetVolumeMounts()[0], given.GetContainers()[0].GetVolumeMounts()[0]) {
			t.Errorf("%v came back as %v", given, wrote)
		}
	}
	read, err := templateFromProto(with([]*runpb.Volume{volume("cloudsql", jokes)},
		&runpb.VolumeMount{Name: "cloudsql", MountPath: "/cloudsql"}))
	if err != nil || read.CloudSQL.Volume != "" {
		t.Errorf("v1's own name is kept as a difference: %+v, %v", read.CloudSQL, err)
	}
}

func TestDatabasesRefused(t *testing.T) {
	good := volume("v", "giggle:europe-north1:jokes")
	mount := &runpb.VolumeMount{Name: "v", MountPath: "/cloudsql"}
	for path, w := range map[string]*runpb.RevisionTemplate{
		"template.volumes[0]: ":                             with([]*runpb.Volume{{Name: "v"}}, mount),
		"template.volumes[0].emptyDir: ":                    with([]*runpb.Volume{{Name: "v", VolumeType: &runpb.Volume_EmptyDir{EmptyDir: &runpb.EmptyDirVolumeSource{}}}}, mount),
		"template.volumes[0].name: ":                        with([]*runpb.Volume{volume("", "giggle:europe-north1:jokes")}, mount),
		"template.volumes[0].cloudSqlInstance.instances: ":  with([]*runpb.Volume{volume("v")}, mount),
		"template.volumes[1]: ":                             with([]*runpb.Volume{good, good}, mount),
		"template.containers[0].volumeMounts: ":             with([]*runpb.Volume{good}),
		"template.containers[0].volumeMounts[0].name: ":     with(nil, mount),
		"template.containers[0].volumeMounts[0].mountPath:": with([]*runpb.Volume{good}, &runpb.VolumeMount{Name: "v", MountPath: "/db"}),
		"template.containers[0].volumeMounts[1]: ":          with([]*runpb.Volume{good}, mount, mount),
	} {
		if _, err := templateFromProto(w); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s%v", path, err)
		}
	}
	// Names that can't be are the model's to refuse, in this API's words.
	s := run.Service{Name: resource.Service("giggle", "europe-north1", "x")}
	s.Template.Containers = []run.Container{{Image: "x"}}
	s.Template.CloudSQL.Instances = []string{"jokes"}
	if err := fieldNames.Translate(s.Validate()); err == nil ||
		!strings.Contains(err.Error(), "template.volumes[0].cloudSqlInstance.instances") {
		t.Errorf("a name that can't be: %v", err)
	}
}
