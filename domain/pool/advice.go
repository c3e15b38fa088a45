package pool

import (
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// Bounds of what another service may say.
const (
	maxAdvisedSize   = 10_000
	maxAdvisedReason = 256
)

// advised records an answer that differs from the last, or renews it when half
// of its time is over: a service that is asked often and says the same fills no log.
func (d *decider) advised(c ReportAdvice) error {
	p, err := d.pool(c.Renderer)
	if err != nil {
		return err
	}
	webhooks := p.Settings.Scaling.Webhooks()
	i := slices.IndexFunc(webhooks, func(w domain.Webhook) bool { return w.URL == c.URL })
	if i < 0 {
		return nil // it was asked for settings that have changed
	}
	if c.Problem == "" && (c.Size < 0 || c.Size > maxAdvisedSize) {
		return domain.Invalid("size", "a size is from 0 to %d, not %d", maxAdvisedSize, c.Size)
	}
	last, known := p.advice(c.URL)
	switch {
	case c.Problem != "" && known && last.Problem != "":
		return nil // that it does not answer is known; why it does not this time says little
	case c.Problem == "" && known && last.Problem == "" && last.Size == c.Size && last.Reason == c.Reason &&
		last.Holds(d.at, webhooks[i].Valid/2):
		return nil
	}
	d.emit(c.Renderer, PoolAdvised{URL: c.URL, Size: c.Size, Reason: c.Reason, Problem: c.Problem})
	return nil
}

func (p *Pool) advice(url string) (scaling.Advice, bool) {
	i := slices.IndexFunc(p.Advice, func(a scaling.Advice) bool { return a.URL == url })
	if i < 0 {
		return scaling.Advice{}, false
	}
	return p.Advice[i], true
}

// evolveAdvised keeps the last answer of each service that the settings name.
func (p *Pool) evolveAdvised(r Recorded, e PoolAdvised) {
	last, _ := p.advice(e.URL)
	if last.URL, last.Problem = e.URL, e.Problem; e.Problem == "" {
		last = scaling.Advice{URL: e.URL, At: r.At, Size: e.Size, Reason: e.Reason, Position: r.Position}
	}
	next := []scaling.Advice{last}
	for _, a := range p.Advice {
		if a.URL != e.URL {
			next = append(next, a)
		}
	}
	p.Advice = next
	p.Advice = p.stillAsked()
}

// stillAsked are the answers of services that the settings name.
func (p *Pool) stillAsked() []scaling.Advice {
	var left []scaling.Advice
	for _, w := range p.Settings.Scaling.Webhooks() {
		if a, known := p.advice(w.URL); known {
			left = append(left, a)
		}
	}
	return left
}
