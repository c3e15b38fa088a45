package domain

import (
	"fmt"
	"maps"
	"slices"
)

// Quota bounds what one owner has in a pool at once. A bound that is absent does not apply; 0 allows none.
type Quota struct {
	Sessions    *int `json:"sessions,omitempty"`     // that wait for a slot or hold one; a booking beyond is refused
	JobsRunning *int `json:"jobs_running,omitempty"` // that hold a slot; others stay queued and let the next owner's pass
	JobsQueued  *int `json:"jobs_queued,omitempty"`  // that wait for a slot or for other jobs; a submission beyond is refused
	Weight      *int `json:"weight,omitempty"`       // of the owner's share of the slots beside others, 1 to 100; absent: 1
}

// QuotaSettings are what every owner may have, and what some may have instead.
type QuotaSettings struct {
	Quota
	Owners map[Owner]Quota `json:"owners,omitempty"` // a bound that is absent here is everybody's
}

// Bounds of quotas.
const (
	maxQuota       = 1_000_000
	maxQuotaOwners = 1000
	maxWeight      = 100
)

// Of is the quota of one owner; it may be asked of nil, which bounds nothing.
func (q *QuotaSettings) Of(o Owner) Quota {
	if q == nil {
		return Quota{}
	}
	all, own := q.Quota, q.Owners[o]
	if own.Sessions != nil {
		all.Sessions = own.Sessions
	}
	if own.JobsRunning != nil {
		all.JobsRunning = own.JobsRunning
	}
	if own.JobsQueued != nil {
		all.JobsQueued = own.JobsQueued
	}
	if own.Weight != nil {
		all.Weight = own.Weight
	}
	return all
}

func (q *QuotaSettings) empty() bool { return q == nil || q.Quota == Quota{} && len(q.Owners) == 0 }

func checkQuotas(r *Renderer) error {
	if r.Quotas.empty() {
		r.Quotas = nil // so that settings which mean the same are the same
		return nil
	}
	if len(r.Quotas.Owners) > maxQuotaOwners {
		return Invalid("quotas.owners", "quotas of their own are for at most %d owners", maxQuotaOwners)
	}
	if len(r.Quotas.Owners) == 0 && r.Quotas.Owners != nil {
		r.Quotas = &QuotaSettings{Quota: r.Quotas.Quota}
	}
	if err := r.Quotas.check("quotas"); err != nil {
		return err
	}
	for _, o := range slices.Sorted(maps.Keys(r.Quotas.Owners)) {
		field := "quotas.owners." + string(o)
		if o == "" {
			return Invalid("quotas.owners", "an owner has a name")
		}
		if err := CheckText("quotas.owners", string(o), MaxOwner); err != nil {
			return err
		}
		if err := r.Quotas.Owners[o].check(field); err != nil {
			return err
		}
	}
	return nil
}

func (q Quota) check(field string) error {
	if q.Weight != nil && (*q.Weight < 1 || *q.Weight > maxWeight) {
		return Invalid(field+".weight", "%s.weight is from 1 to %d, not %d", field, maxWeight, *q.Weight)
	}
	for _, b := range []struct {
		name  string
		value *int
	}{{"sessions", q.Sessions}, {"jobs_running", q.JobsRunning}, {"jobs_queued", q.JobsQueued}} {
		if b.value != nil && (*b.value < 0 || *b.value > maxQuota) {
			name := fmt.Sprintf("%s.%s", field, b.name)
			return Invalid(name, "%s is from 0 to %d, not %d", name, maxQuota, *b.value)
		}
	}
	return nil
}
