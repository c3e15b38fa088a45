package scaling

import (
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// webhook does what another service said last, as Agones' Webhook policy does.
// The question is put outside (commands/process); the answer is an event, and
// holds for a time. Then, and before the first, the next of the chain decides, or demand.
type webhook struct {
	url   string
	valid time.Duration
}

// Advice is what another service answered last when it was asked for a size.
type Advice struct {
	URL      string    `json:"url"`
	At       time.Time `json:"at,omitzero"` // of the answer; zero: there was none yet
	Size     int       `json:"size"`
	Reason   string    `json:"reason,omitempty"`
	Problem  string    `json:"problem,omitempty"` // why there is no newer answer
	Position int64     `json:"position,omitempty"`
}

// Holds says whether the answer still counts.
func (a Advice) Holds(at time.Time, valid time.Duration) bool {
	return !a.At.IsZero() && at.Sub(a.At) < valid
}

func newWebhook(p domain.ScalingPolicy) webhook {
	return webhook{url: p.Parameters["url"], valid: p.Duration("valid")}
}

func (webhook) Name() string { return domain.ScalingWebhook }
func (webhook) Version() int { return 1 }

func (h webhook) Wish(in *Inputs) Wish {
	for i := range in.Advice {
		a := &in.Advice[i]
		if a.URL != h.url || !a.Holds(in.Now, h.valid) {
			continue
		}
		w := Wish{Least: a.Size, Most: a.Size}
		w.Reason = func() string {
			if a.Reason == "" {
				return fmt.Sprintf("a service was asked and wants %d", a.Size)
			}
			return fmt.Sprintf("a service was asked and wants %d: %s", a.Size, a.Reason)
		}
		w.Spare = w.Reason
		return w
	}
	return Wish{Pass: true}
}
