package pool

// dueJobs are the first queued jobs that may begin now, of the head's priority
// first as the queue is ordered: at most lookAhead, without those that wait for
// their next attempt, and of an owner no more than its quota leaves.
func (d *decider) dueJobs(p *poolState) []*Job {
	var due []*Job
	left := room{d: d, p: p}
	for _, j := range p.queue {
		if j.NotBefore != nil && d.at.Before(*j.NotBefore) || !left.take(j.Owner) {
			continue
		}
		if due = append(due, j); len(due) == lookAhead {
			break
		}
	}
	return due
}
