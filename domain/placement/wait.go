package placement

// WaitForWarm says whether a job had better wait for a busy resource that has
// its model loaded than for one that is still to be started: only while the
// expected wait is below the cost of that, and never for longer (the rule of
// ski rental: rent until you have paid the price of buying).
//
// ahead is how many jobs for the model wait before this one, copies how many
// slots of warm resources jobs are about to free, jobSeconds the learned time of
// one job, waited how long this job has waited, cost what the other way takes.
func WaitForWarm(ahead, copies int, jobSeconds, waited, cost float64) bool {
	if copies == 0 || waited >= cost {
		return false
	}
	return jobSeconds*float64(ahead+1)/float64(copies) < cost
}

// Cheapest is the free slot with the least expected time to first frame for a
// request, whoever else waits; nil: none can serve it.
func Cheapest(v *View, p Policy, r *Request) *Option {
	w := v.want(r)
	var best *Candidate
	for _, o := range v.Fleet.Free {
		c, why := Price(v, p, &w, o)
		if why == "" && (best == nil || compare(&c, best) < 0) {
			best = &c
		}
	}
	if best == nil {
		return nil
	}
	return best.option
}
