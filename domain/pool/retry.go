package pool

import (
	"hash/fnv"
	"strconv"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// How long a job waits before its next attempt: doubled after each, from the
// least to the most. What was interrupted by us begins at once.
var backoff = map[Class]struct{ least, most time.Duration }{
	ClassTransient: {time.Second, time.Minute},         // the resource was lost or did not answer: another will do
	ClassTimeout:   {5 * time.Second, 5 * time.Minute}, // it kept a slot for all of its time: others first
}

// RetryDelay is the pause after an attempt (1 is the first) that failed with a
// class, at least half and at most all of the doubled time: jobs that failed
// together, with the resource that they shared, are not to come back together.
// The chance in it is a hash of the job and the attempt, so that it comes out the same whenever it is asked.
func RetryDelay(id domain.JobID, attempt int, class Class) time.Duration {
	b := backoff[class]
	whole := min(b.most, b.least<<min(16, max(0, attempt-1)))
	h := fnv.New64a()
	_, _ = h.Write([]byte(string(id) + "/" + strconv.Itoa(attempt))) // a hash's Write does not fail
	share := float64(scramble(h.Sum64())>>11) / (1 << 53)
	return whole/2 + time.Duration(share*float64(whole/2))
}

// scramble spreads what differs in few bits over all of them: the last step of SplitMix64 (Steele, Lea and Flood 2014).
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
