package iam

import (
	"strings"
	"time"

	"github.com/google/cel-go/cel"

	"giggle/catalog"
)

// Attributes are what a condition can ask about one request.
type Attributes struct {
	Name    string    // resource.name, in the form that Google's conditions have
	Type    string    // resource.type
	Service string    // resource.service
	Time    time.Time // request.time
}

var _ cel.Activation = (*Attributes)(nil)

// ResolveName returns the value of an attribute.
func (a *Attributes) ResolveName(name string) (any, bool) {
	switch name {
	case "resource.name":
		return a.Name, true
	case "resource.type":
		return a.Type, true
	case "resource.service":
		return a.Service, true
	case "request.time":
		return a.Time, true
	}
	return nil, false
}

// Parent is nil: there is nothing but these.
func (a *Attributes) Parent() cel.Activation { return nil }

// attributesOf returns the attributes of a request at a time for the resource that policies know under name. A resource
// of no kind that an API has bears its name, and "" as type and service.
func attributesOf(name string, now time.Time) *Attributes {
	a := &Attributes{Name: name, Time: now}
	api, kind, ok := catalog.TypeOf(name)
	if !ok {
		return a
	}
	a.Service, a.Type = api.Host, api.Host+"/"+kind.Type
	if kind.Global {
		_, below, _ := strings.Cut(strings.TrimPrefix(name, "projects/"), "/")
		a.Name = "projects/_/" + below
	}
	return a
}
