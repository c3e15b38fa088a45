package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func itoa(n int) string { return strconv.Itoa(n) }

func trimEnd(s string) string { return strings.TrimRight(s, "\n") }

func percent(f float64) string { return fmt.Sprintf("%.0f %%", f*100) }

func queuePlace(q client.QueuePlace) string {
	text := fmt.Sprintf("place %d, about %s", q.Position, seconds(q.EstimatedWaitSeconds))
	if q.HighSeconds > 0 {
		text += fmt.Sprintf(" (%s to %s)", seconds(q.LowSeconds), seconds(q.HighSeconds))
	}
	return text
}

func attempts(j client.Job) string {
	if j.Attempts == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", j.Attempts, j.MaxAttempts)
}
