package simulate

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The kinds of happening, in the order in which they come at one instant.
const (
	happensEnd = iota
	happensReady
	happensTick
)

type happening struct {
	at       time.Duration
	kind     int
	number   int // of the resource
	seq      int // the order in which they were planned
	resource domain.ResourceID
	request  int             // that ends; -1: a load ends
	model    domain.ModelKey // that is loaded
}

func (h *happening) before(o *happening) bool {
	switch {
	case h.at != o.at:
		return h.at < o.at
	case h.kind != o.kind:
		return h.kind < o.kind
	case h.number != o.number:
		return h.number < o.number
	}
	return h.seq < o.seq
}

// agenda is what is planned: a binary heap, the next first. It is written out
// because container/heap would put each of them into an interface, twice.
type agenda []happening

func (a *agenda) add(h happening) {
	list := append(*a, h)
	i := len(list) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !list[i].before(&list[up]) {
			break
		}
		list[i], list[up] = list[up], list[i]
		i = up
	}
	*a = list
}

// next takes the next one out. There must be one.
func (a *agenda) next() happening {
	list := *a
	first, last := list[0], len(list)-1
	list[0] = list[last]
	list[last] = happening{}
	list = list[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && list[down].before(&list[least]) {
				least = down
			}
		}
		if least == i {
			break
		}
		list[i], list[least] = list[least], list[i]
		i = least
	}
	*a = list
	return first
}
