package pool

// dueJobs are the first queued jobs that may begin now, of the head's priority
// first as the queue is ordered: at most lookAhead, without those that wait for
// their next attempt. Of an owner no more stand in the queue than its quota leaves.
func (d *decider) dueJobs(p *poolState) []*Job {
	var due []*Job
	for _, j := range p.queue {
		if j.NotBefore != nil && d.at.Before(*j.NotBefore) {
			continue
		}
		if due = append(due, j); len(due) == lookAhead {
			break
		}
	}
	return due
}
