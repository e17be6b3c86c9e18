package storagejson

import (
	"bytes"
	"encoding/json"

	"giggle/rest"
)

// The fields of the resources that clients send, as the discovery document has them
// (https://storage.googleapis.com/$discovery/rest?version=v1). A body with any other is refused with its path: what a
// client believes to have set must not be lost without a word.

// text is a string or a number: clients write an int64 as either.
type text = json.RawMessage

type toggle struct {
	Enabled    bool `json:"enabled"`
	LockedTime text `json:"lockedTime"`
}

// accessFields is an ObjectAccessControl or a BucketAccessControl.
type accessFields struct {
	Bucket      text `json:"bucket"`
	Domain      text `json:"domain"`
	Email       text `json:"email"`
	Entity      text `json:"entity"`
	EntityID    text `json:"entityId"`
	Etag        text `json:"etag"`
	Generation  text `json:"generation"`
	ID          text `json:"id"`
	Kind        text `json:"kind"`
	Object      text `json:"object"`
	ProjectTeam *struct {
		ProjectNumber text `json:"projectNumber"`
		Team          text `json:"team"`
	} `json:"projectTeam"`
	Role     text `json:"role"`
	SelfLink text `json:"selfLink"`
}

type ownerFields struct {
	Entity   text `json:"entity"`
	EntityID text `json:"entityId"`
}

type lifecycleFields struct {
	Rule []struct {
		Action *struct {
			Type         string `json:"type"`
			StorageClass string `json:"storageClass"`
		} `json:"action"`
		Condition *struct {
			Age                     *int32   `json:"age"`
			CreatedBefore           string   `json:"createdBefore"`
			CustomTimeBefore        string   `json:"customTimeBefore"`
			DaysSinceCustomTime     *int32   `json:"daysSinceCustomTime"`
			DaysSinceNoncurrentTime *int32   `json:"daysSinceNoncurrentTime"`
			IsLive                  *bool    `json:"isLive"`
			MatchesPattern          string   `json:"matchesPattern"`
			MatchesPrefix           []string `json:"matchesPrefix"`
			MatchesStorageClass     []string `json:"matchesStorageClass"`
			MatchesSuffix           []string `json:"matchesSuffix"`
			NoncurrentTimeBefore    string   `json:"noncurrentTimeBefore"`
			NumNewerVersions        *int32   `json:"numNewerVersions"`
		} `json:"condition"`
	} `json:"rule"`
}

// bucketFields is a Bucket.
type bucketFields struct {
	ACL       []accessFields `json:"acl"`
	Autoclass *struct {
		Enabled                        bool `json:"enabled"`
		TerminalStorageClass           text `json:"terminalStorageClass"`
		TerminalStorageClassUpdateTime text `json:"terminalStorageClassUpdateTime"`
		ToggleTime                     text `json:"toggleTime"`
	} `json:"autoclass"`
	Billing *struct {
		RequesterPays bool `json:"requesterPays"`
	} `json:"billing"`
	CORS []struct {
		MaxAgeSeconds  *int32   `json:"maxAgeSeconds"`
		Method         []string `json:"method"`
		Origin         []string `json:"origin"`
		ResponseHeader []string `json:"responseHeader"`
	} `json:"cors"`
	CustomPlacementConfig *struct {
		DataLocations []string `json:"dataLocations"`
	} `json:"customPlacementConfig"`
	DefaultEventBasedHold *bool           `json:"defaultEventBasedHold"`
	DefaultObjectACL      []accessFields  `json:"defaultObjectAcl"`
	Encryption            json.RawMessage `json:"encryption"` // refused as a whole, as the next ones are
	Etag                  text            `json:"etag"`
	Generation            text            `json:"generation"`
	HardDeleteTime        text            `json:"hardDeleteTime"`
	HierarchicalNamespace *struct {
		Enabled bool `json:"enabled"`
	} `json:"hierarchicalNamespace"`
	IAMConfiguration *struct {
		BucketPolicyOnly         *toggle `json:"bucketPolicyOnly"`
		UniformBucketLevelAccess *toggle `json:"uniformBucketLevelAccess"`
		PublicAccessPrevention   string  `json:"publicAccessPrevention"`
	} `json:"iamConfiguration"`
	ID           text               `json:"id"`
	IPFilter     json.RawMessage    `json:"ipFilter"`
	Kind         text               `json:"kind"`
	Labels       map[string]*string `json:"labels"`
	Lifecycle    *lifecycleFields   `json:"lifecycle"`
	Location     string             `json:"location"`
	LocationType text               `json:"locationType"`
	Logging      *struct {
		LogBucket       string `json:"logBucket"`
		LogObjectPrefix string `json:"logObjectPrefix"`
	} `json:"logging"`
	Metageneration  text   `json:"metageneration"`
	Name            string `json:"name"`
	ObjectRetention *struct {
		Mode string `json:"mode"`
	} `json:"objectRetention"`
	Owner           *ownerFields `json:"owner"`
	ProjectNumber   text         `json:"projectNumber"`
	RetentionPolicy *struct {
		EffectiveTime   text `json:"effectiveTime"`
		IsLocked        bool `json:"isLocked"`
		RetentionPeriod text `json:"retentionPeriod"`
	} `json:"retentionPolicy"`
	RPO              string `json:"rpo"`
	SatisfiesPZI     *bool  `json:"satisfiesPZI"`
	SatisfiesPZS     *bool  `json:"satisfiesPZS"`
	SelfLink         text   `json:"selfLink"`
	SoftDeletePolicy *struct {
		EffectiveTime            text `json:"effectiveTime"`
		RetentionDurationSeconds text `json:"retentionDurationSeconds"`
	} `json:"softDeletePolicy"`
	SoftDeleteTime text   `json:"softDeleteTime"`
	StorageClass   string `json:"storageClass"`
	TimeCreated    text   `json:"timeCreated"`
	Updated        text   `json:"updated"`
	Versioning     *struct {
		Enabled bool `json:"enabled"`
	} `json:"versioning"`
	Website *struct {
		MainPageSuffix string `json:"mainPageSuffix"`
		NotFoundPage   string `json:"notFoundPage"`
	} `json:"website"`
}

// objectFields are the fields of an Object that say nothing to Giggle: those that only the server sets, which clients
// send back.
type objectFields struct {
	ComponentCount          text         `json:"componentCount"`
	CustomerEncryption      text         `json:"customerEncryption"`
	Etag                    text         `json:"etag"`
	Generation              text         `json:"generation"`
	HardDeleteTime          text         `json:"hardDeleteTime"`
	ID                      text         `json:"id"`
	Kind                    text         `json:"kind"`
	MediaLink               text         `json:"mediaLink"`
	Metageneration          text         `json:"metageneration"`
	Owner                   *ownerFields `json:"owner"`
	RestoreToken            text         `json:"restoreToken"`
	RetentionExpirationTime text         `json:"retentionExpirationTime"`
	SelfLink                text         `json:"selfLink"`
	Size                    text         `json:"size"`
	SoftDeleteTime          text         `json:"softDeleteTime"`
	TimeCreated             text         `json:"timeCreated"`
	TimeDeleted             text         `json:"timeDeleted"`
	TimeFinalized           text         `json:"timeFinalized"`
	TimeStorageClassUpdated text         `json:"timeStorageClassUpdated"`
	Updated                 text         `json:"updated"`
}

// strict reads a JSON text into v; one of nothing leaves it as it is.
func strict(raw []byte, v any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	return rest.DecodeStrict(raw, v)
}

// params are the query parameters of each method, beside those that all have, as the discovery document has them.
var params = map[string][]string{
	"storage.buckets.delete": {"ifMetagenerationMatch", "ifMetagenerationNotMatch"},
	"storage.buckets.get": {"generation", "ifMetagenerationMatch", "ifMetagenerationNotMatch", "projection",
		"softDeleted"},
	"storage.buckets.getIamPolicy":     {"optionsRequestedPolicyVersion"},
	"storage.buckets.getStorageLayout": {"prefix"},
	"storage.buckets.insert": {"enableObjectRetention", "predefinedAcl", "predefinedDefaultObjectAcl", "project",
		"projection"},
	"storage.buckets.list": {"maxResults", "pageToken", "prefix", "project", "projection", "returnPartialSuccess",
		"softDeleted"},
	"storage.buckets.patch": {"ifMetagenerationMatch", "ifMetagenerationNotMatch", "predefinedAcl",
		"predefinedDefaultObjectAcl", "projection"},
	"storage.buckets.setIamPolicy":       {},
	"storage.buckets.testIamPermissions": {"permissions"},
	"storage.buckets.update": {"ifMetagenerationMatch", "ifMetagenerationNotMatch", "predefinedAcl",
		"predefinedDefaultObjectAcl", "projection"},
	"storage.folders.list":        {"delimiter", "endOffset", "pageSize", "pageToken", "prefix", "startOffset"},
	"storage.managedFolders.list": {"pageSize", "pageToken", "prefix"},
	"storage.objects.compose": {"destinationPredefinedAcl", "dropContextGroups", "ifGenerationMatch",
		"ifMetagenerationMatch", "kmsKeyName"},
	"storage.objects.copy": {"destinationKmsKeyName", "destinationPredefinedAcl", "ifGenerationMatch",
		"ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch", "ifSourceGenerationMatch",
		"ifSourceGenerationNotMatch", "ifSourceMetagenerationMatch", "ifSourceMetagenerationNotMatch", "projection",
		"sourceGeneration"},
	// Google's library for Node.js sends what it has listed the objects by along with each delete.
	"storage.objects.delete": {"generation", "ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch",
		"ifMetagenerationNotMatch", "autoPaginate", "delimiter", "endOffset", "force", "includeTrailingDelimiter",
		"matchGlob", "maxResults", "prefix", "softDeleted", "startOffset", "versions"},
	"storage.objects.get": {"generation", "ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch",
		"ifMetagenerationNotMatch", "projection", "restoreToken", "softDeleted"},
	"storage.objects.insert": {"contentEncoding", "ifGenerationMatch", "ifGenerationNotMatch",
		"ifMetagenerationMatch", "ifMetagenerationNotMatch", "kmsKeyName", "name", "predefinedAcl", "projection"},
	"storage.objects.list": {"delimiter", "endOffset", "filter", "includeFoldersAsPrefixes",
		"includeTrailingDelimiter", "matchGlob", "maxResults", "pageToken", "prefix", "projection", "softDeleted",
		"startOffset", "versions"},
	"storage.objects.move": {"ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch",
		"ifMetagenerationNotMatch", "ifSourceGenerationMatch", "ifSourceGenerationNotMatch",
		"ifSourceMetagenerationMatch", "ifSourceMetagenerationNotMatch", "projection"},
	"storage.objects.patch": {"generation", "ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch",
		"ifMetagenerationNotMatch", "overrideUnlockedRetention", "predefinedAcl", "projection"},
	"storage.objects.restore": {"copySourceAcl", "generation", "ifGenerationMatch", "ifGenerationNotMatch",
		"ifMetagenerationMatch", "ifMetagenerationNotMatch", "projection", "restoreToken"},
	"storage.objects.rewrite": {"destinationKmsKeyName", "destinationPredefinedAcl", "dropContextGroups",
		"ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch",
		"ifSourceGenerationMatch", "ifSourceGenerationNotMatch", "ifSourceMetagenerationMatch",
		"ifSourceMetagenerationNotMatch", "maxBytesRewrittenPerCall", "projection", "rewriteToken",
		"sourceGeneration"},
	"storage.objects.update": {"generation", "ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch",
		"ifMetagenerationNotMatch", "overrideUnlockedRetention", "predefinedAcl", "projection"},
}
