package run

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"giggle/resource"
)

// computeStatus says how far a service has come, given its revisions. It reads nothing else.
func computeStatus(svc *Service, revs map[string]Revision, p resource.Project, now time.Time) Status {
	st := svc.Status
	st.Conditions = slices.Clone(st.Conditions)
	set := func(kind string, state State, reason, message string) {
		st.Conditions = setCondition(st.Conditions,
			Condition{Type: kind, State: state, Reason: reason, Message: message}, now)
	}

	latest, made := revs[st.LatestCreated]
	ready := latest.Ready()
	switch {
	case !made:
		set(ConfigurationsReady, Unknown, "", "")
		ready = Condition{State: Unknown}
	case ready.State == True:
		st.LatestReady = st.LatestCreated
		set(ConfigurationsReady, True, "", "")
	case ready.State == False:
		set(ConfigurationsReady, False, ready.Reason,
			fmt.Sprintf("Revision '%s' is not ready and cannot serve traffic. %s", st.LatestCreated, ready.Message))
	default:
		set(ConfigurationsReady, Unknown, "Deploying", "Creating Revision.")
	}

	traffic, problem := resolveTraffic(svc, st.LatestReady, revs, p)
	routes := Condition{State: True}
	switch {
	case problem.Reason != "":
		routes = problem // what is served stays as it was
	case ready.State == Unknown:
		routes = Condition{State: Unknown, Reason: "Deploying"}
		if len(st.Traffic) > 0 {
			st.Traffic = traffic // a change of traffic does not wait for a revision that it does not name
		}
	default:
		st.Traffic = traffic
	}

	st.ObservedGeneration = svc.Generation
	config := condition(st.Conditions, ConfigurationsReady)
	if config.State == False && len(st.Traffic) == 0 {
		routes = config
	}
	// Each condition is set once: two that take turns would be a change each time, and this would be called for ever.
	set(RoutesReady, routes.State, routes.Reason, routes.Message)
	all := config
	if config.State == True {
		all = routes
	}
	set(Ready, all.State, all.Reason, all.Message)
	// gcloud 528 lists the conditions in this order.
	order := []string{Ready, ConfigurationsReady, RoutesReady}
	slices.SortStableFunc(st.Conditions, func(a, b Condition) int {
		return cmp.Compare(slices.Index(order, a.Type), slices.Index(order, b.Type))
	})
	return st
}

// resolveTraffic turns what is wanted into what is served: revisions by name, tagged entries first. The condition's
// Reason is set when it can't.
func resolveTraffic(
	svc *Service, latestReady string, revs map[string]Revision, p resource.Project,
) ([]TargetStatus, Condition) {
	host, _ := Hosts(p, svc.Name)
	var out []TargetStatus
	for _, t := range svc.Traffic {
		if t.Latest {
			t.Revision = latestReady
			if latestReady == "" {
				return nil, Condition{State: Unknown, Reason: "RevisionMissing", Message: "No revision is ready yet."}
			}
		}
		rev, ok := revs[t.Revision]
		switch {
		case !ok:
			return nil, Condition{
				State:   False,
				Reason:  "RevisionMissing",
				Message: fmt.Sprintf("Revision '%s' is not found. `gcloud run revisions list --service %s` shows those that there are.", t.Revision, svc.Name.ID),
			}
		case rev.Ready().State == Unknown:
			return nil, Condition{
				State:   Unknown,
				Reason:  "RevisionNotReady",
				Message: fmt.Sprintf("Revision '%s' is not ready yet.", t.Revision),
			}
		case rev.Ready().State == False:
			return nil, Condition{
				State:  False,
				Reason: "RevisionFailed",
				Message: fmt.Sprintf("Revision '%s' is not ready and cannot serve traffic. %s", t.Revision,
					rev.Ready().Message),
			}
		}
		s := TargetStatus{Target: t}
		if t.Tag != "" {
			s.URL = "https://" + TagHost(t.Tag, host)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b TargetStatus) int {
		return cmp.Compare(b2i(a.Tag == ""), b2i(b.Tag == ""))
	})
	return out, Condition{}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// routeOf is the routing table's entry for the traffic in a service's status.
func routeOf(svc *Service, revs map[string]Revision, p resource.Project) Route {
	hashed, numbered := Hosts(p, svc.Name)
	r := Route{
		Service:            svc.Name,
		Hosts:              []string{hashed, numbered},
		Ingress:            svc.Ingress,
		InvokerIAMDisabled: svc.InvokerIAMDisabled,
		CustomAudiences:    svc.CustomAudiences,
		Scaling:            svc.Scaling,
		Tags:               make(map[string]Revision),
	}
	for _, t := range svc.Status.Traffic {
		rev, ok := revs[t.Revision]
		if !ok {
			continue
		}
		if t.Percent > 0 {
			r.Targets = append(r.Targets, RouteTarget{rev, t.Percent})
		}
		if t.Tag != "" {
			r.Tags[t.Tag] = rev
		}
	}
	return r
}
