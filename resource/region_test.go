package resource_test

import (
	"strings"
	"testing"

	"giggle/fault"
	"giggle/resource"
)

func TestCheckRegion(t *testing.T) {
	for name, want := range map[string]string{
		"europe-north1":   "",
		"us-central1":     "",
		"me-west1":        "",
		"us-central1-a":   "is a zone; its region is us-central1.",
		"europe-north1-c": "is a zone; its region is europe-north1.",
		"US-CENTRAL1-A":   "is a zone; its region is us-central1.",
		"EUROPE-NORTH1":   "is not a region; europe-north1 is.",
		"Europe-West1":    "is not a region; europe-west1 is.",
		"us-central":      "is not a region of Google Cloud.",
		"mars-1":          "is not a region of Google Cloud.",
		"us":              "is not a region of Google Cloud.",
		"global":          "is not a region of Google Cloud.",
		"mars-1-a":        "is not a region of Google Cloud.",
		"":                "is not a region of Google Cloud.",
		"-":               "is not a region of Google Cloud.",
	} {
		err := resource.CheckRegion(name)
		if want == "" && err != nil || want != "" && (!fault.Is(err, fault.NotFound) ||
			!strings.Contains(fault.From(err).Message, want) || !strings.Contains(err.Error(), "gcloud run regions list")) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}
