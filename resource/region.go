package resource

import (
	"slices"
	"strings"

	"giggle/fault"
)

// regions are the locations of Cloud Run that gcloud 528 offers, each with the two letters that stand for it in
// service URLs (https://SERVICE-HASH-RR.a.run.app). The letters are those seen in Google's URLs; where none was known
// to us, two that were free.
var regions = map[string]string{
	"africa-south1": "bq", "asia-east1": "de", "asia-east2": "df", "asia-northeast1": "an", "asia-northeast2": "dt",
	"asia-northeast3": "du", "asia-south1": "el", "asia-south2": "em", "asia-southeast1": "as", "asia-southeast2": "et",
	"australia-southeast1": "ts", "australia-southeast2": "km", "europe-central2": "lm", "europe-north1": "lz",
	"europe-north2": "la", "europe-southwest1": "no", "europe-west1": "ew", "europe-west10": "oe",
	"europe-west12": "og",
	"europe-west2":  "nw", "europe-west3": "ey", "europe-west4": "ez", "europe-west6": "oa", "europe-west8": "oc",
	"europe-west9": "od", "me-central1": "ww", "me-central2": "wx", "me-west1": "zf", "northamerica-northeast1": "nn",
	"northamerica-northeast2": "pd", "northamerica-south1": "pv", "southamerica-east1": "rj",
	"southamerica-west1": "tl",
	"us-central1":        "uc", "us-east1": "ue", "us-east4": "uk", "us-east5": "ul", "us-south1": "vp",
	"us-west1": "uw",
	"us-west2": "wl", "us-west3": "wm", "us-west4": "wn",
}

// Regions returns the names of all regions, sorted.
func Regions() []string {
	out := make([]string, 0, len(regions))
	for r := range regions {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// IsRegion reports whether there is a region of that name.
func IsRegion(name string) bool { return regions[name] != "" }

// CheckRegion fails with NotFound for a name that is no region's, and says what is meant by a zone and by capitals.
func CheckRegion(name string) error {
	if IsRegion(name) {
		return nil
	}
	const list = "`gcloud run regions list` shows the regions."
	lower := strings.ToLower(name)
	if i := strings.LastIndexByte(lower, '-'); i > 0 && i == len(lower)-2 && IsRegion(lower[:i]) {
		return fault.New(fault.NotFound, "Location %.60q is a zone; its region is %s. %s", name, lower[:i], list)
	}
	if IsRegion(lower) {
		return fault.New(fault.NotFound, "Location %.60q is not a region; %s is. %s", name, lower, list)
	}
	return fault.New(fault.NotFound, "Location %.60q is not a region of Google Cloud. %s", name, list)
}

// RegionCode returns the two letters of a region in service URLs, or "".
func RegionCode(name string) string { return regions[name] }

// MultiRegions are the locations of Artifact Registry and Storage that are no single region.
func MultiRegions() []string { return []string{"asia", "europe", "us"} }

// IsLocation reports whether data may be placed there: a region or a multi-region, in any letter case.
func IsLocation(name string) bool {
	name = strings.ToLower(name)
	return IsRegion(name) || slices.Contains(MultiRegions(), name) || name == "eu"
}
