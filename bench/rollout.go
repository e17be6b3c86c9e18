package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"giggle/bench/demo"
)

// changeRate is the load while something is changed.
const changeRate = 1000

// underLoad loads the hello service while do runs, and returns when do began, since the load's start, and all answers.
func (r *run) underLoad(ctx context.Context, p *platform, do func(start time.Time) error) ([]answer, error) {
	l, err := loadOn(ctx, p, r.url)
	if err != nil {
		return nil, err
	}
	defer l.close()
	over, failed := make(chan struct{}), make(chan error, 1)
	start := time.Now()
	go func() {
		defer close(over)
		failed <- do(start)
	}()
	answers := l.run(ctx, constant(changeRate), over)
	return answers, <-failed
}

// trafficChange measures from the request that gives all traffic to another revision until nobody who asks gets the one
// before.
func trafficChange(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(p *platform, c *demo.Client) error {
		var names [2]string
		for i := range names {
			if _, err := c.Deploy(ctx, "hello", r.image, nil); err != nil {
				return err
			}
			svc, err := c.Service(ctx, "hello")
			if err != nil {
				return err
			}
			status, _ := svc["status"].(map[string]any)
			names[i], _ = status["latestReadyRevisionName"].(string)
			// It has its instance before the load comes.
			if err := answeredBy(ctx, c, r.url, names[i]); err != nil {
				return err
			}
		}
		type change struct {
			sent, answered time.Duration
			from, to       string
		}
		var changes []change
		answers, err := r.underLoad(ctx, p, func(start time.Time) error {
			for i := range r.n {
				svc, err := c.Service(ctx, "hello")
				if err != nil {
					return err
				}
				ch := change{from: names[(i+1)%2], to: names[i%2]}
				svc["spec"].(map[string]any)["traffic"] = []map[string]any{{"revisionName": ch.to, "percent": 100}}
				ch.sent = time.Since(start)
				if err := c.Replace(ctx, "hello", svc); err != nil {
					return err
				}
				ch.answered = time.Since(start)
				changes = append(changes, ch)
				if err := answeredBy(ctx, c, r.url, ch.to); err != nil {
					return err
				}
				if err := pause(ctx, 200*time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		var s, calls series
		for i, ch := range changes {
			end := time.Hour
			if i+1 < len(changes) {
				end = changes[i+1].sent
			}
			last, seen := ch.sent, 0
			for _, a := range answers {
				if a.due < ch.sent || a.due >= end || a.err != nil {
					continue
				}
				switch a.text[len("hello 0 from "):] {
				case ch.from:
					last = max(last, a.due)
				case ch.to:
					seen++
				}
			}
			if seen == 0 {
				return fmt.Errorf("nobody reached %s", ch.to)
			}
			s, calls = append(s, last-ch.sent), append(calls, ch.answered-ch.sent)
		}
		_, failed, note := judge(answers)
		r.times("traffic_change", s, "", nil, goal{p95: 10})
		r.last().Met = r.last().Met && failed == 0
		r.last().Goal += ", no error"
		r.last().Note = fmt.Sprintf("%s; the call itself is answered after %.1f ms (p50)", note, calls.quantile(0.5))
		return nil
	})
}

// answeredBy asks a service until the revision answers.
func answeredBy(ctx context.Context, c *demo.Client, url, revision string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		got, err := c.Get(ctx, url)
		if err != nil {
			return fmt.Errorf("while %s is to get the traffic: %w", revision, err)
		}
		if strings.HasSuffix(strings.TrimSpace(got), " "+revision) {
			return nil
		}
		if err := pause(ctx, statusPoll); err != nil {
			return err
		}
	}
}

// rollout compares the times of requests while new revisions come with those before that.
func rollout(ctx context.Context, r *run) error {
	return r.withHello(ctx, nil, func(p *platform, c *demo.Client) error {
		var from time.Duration
		answers, err := r.underLoad(ctx, p, func(start time.Time) error {
			if err := pause(ctx, r.length()); err != nil {
				return err
			}
			from = time.Since(start)
			for range r.n {
				if _, err := c.Deploy(ctx, "hello", r.image, nil); err != nil {
					return err
				}
				if err := pause(ctx, r.length()/10); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		const warm = time.Second / 2 // connections and an instance
		var before, during []answer
		revisions := make(map[string]bool)
		for _, a := range answers {
			switch {
			case a.due >= from:
				during = append(during, a)
				revisions[a.text] = true
			case a.due >= warm:
				before = append(before, a)
			}
		}
		base, failedBefore, _ := judge(before)
		took, failed, note := judge(during)
		r.times("rollout_p95", took, "the same load before", base, goal{})
		res := r.last()
		res.Value, res.BaselineValue = res.P95, base.quantile(0.95)
		res.Ratio = float64(int(res.Value/res.BaselineValue*100+0.5)) / 100
		res.Goal, res.Met = "p95 ≤ +10 ms, no error", res.Value-res.BaselineValue <= 10 && failed+failedBefore == 0
		res.Note = fmt.Sprintf("%s, %d revisions answered; p95 before %.1f ms, during %.1f ms (beside it stands the p95)", note, len(revisions), res.BaselineValue, res.Value)
		return nil
	})
}
