package guard

import (
	"context"
	"errors"
	"fmt"

	"giggle/rest"
)

// Chain is the guard before one API.
type Chain struct {
	guard *Guard
	api   API
	rules map[string]compiled
}

// compiled is a rule with its templates parsed: of these the first counts whose fields are all there.
type compiled struct {
	Rule
	on []template
}

// Chain returns the guard before an API. It fails on a rule that can't be one.
func (g *Guard) Chain(api API) (*Chain, error) {
	c := &Chain{guard: g, api: api, rules: make(map[string]compiled, len(api.Rules))}
	for rpc, rule := range api.Rules {
		on, err := parseTemplates(rule.On)
		if err = errors.Join(err, rule.check()); err != nil {
			return nil, fmt.Errorf("guard: the rule of %s: %w", rpc, err)
		}
		c.rules[rpc] = compiled{rule, on}
	}
	return c, nil
}

// check fails unless the rule says just one thing about who may.
func (r Rule) check() error {
	n := 0
	for _, said := range []bool{r.Permission != "", r.Authenticated, r.Open, r.Absent} {
		if said {
			n++
		}
	}
	if n != 1 || r.Permission != "" && r.On == "" {
		return errors.New("want one of a permission with a resource, Authenticated, Open and Absent")
	}
	return nil
}

// Admit is what an API's mux asks before it reads a body: it authenticates the caller, and authorises the call where
// its path and query say what it is about. What only the body says is left to the interceptors.
func (c *Chain) Admit(ctx context.Context, call *rest.Call) error {
	g, rule := c.guard, c.rules[call.Method]
	if rule.Open {
		return nil
	}
	err := g.authenticate(ctx, call, rule.Rule, c.api)
	if err == nil && rule.Permission != "" {
		if on, e := g.resource(ctx, rule.on, call); e == nil || !errors.As(e, new(*missing)) {
			if err = e; err == nil {
				err = g.authorise(ctx, call, rule.Rule, c.api, on)
			}
			_, whole := call.Message.(*rest.Request)
			call.Admitted = whole || len(rule.on) == 1
		}
	}
	if err != nil {
		g.record(c.api.Host, call, rule.Rule, err)
	}
	return err
}

// Interceptors are what stands before the API's handlers.
func (c *Chain) Interceptors() []rest.Interceptor { return []rest.Interceptor{c.intercept} }

func (c *Chain) intercept(ctx context.Context, call *rest.Call, next rest.Handler) (any, error) {
	g, host, rule := c.guard, c.api.Host, c.rules[call.Method]
	if rule.Open {
		return next(ctx, call)
	}
	if err := g.admit(ctx, call, rule, c.api); err != nil {
		g.record(host, call, rule.Rule, err)
		return nil, err
	}
	if reads(call, rule.Rule) {
		out, err := next(ctx, call)
		g.record(host, call, rule.Rule, err)
		return out, err
	}
	ctx, pending := g.Audit.Begin(ctx, event(host, call, rule.Rule, nil))
	out, err := next(ctx, call)
	g.logged(call, pending.End(event(host, call, rule.Rule, err)))
	return out, err
}
