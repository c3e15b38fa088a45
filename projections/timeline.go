package projections

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/rendering-resource-manager/rrm/eventstore"
)

// timelineFollower is the name of the checkpoint. Its table has no
// generations: to fill it anew, a migration empties it and deletes the checkpoint.
const timelineFollower = "timeline"

// typePrefix marks the types among the subjects. No noun of a subject is called so.
const typePrefix = "type:"

func typeSubject(t string) string { return typePrefix + t }

// timelineRun is how many events one transaction indexes: large, because the
// work is one statement, and small enough that a run commits within some 0.1 s.
const timelineRun = 2000

// Timeline fills event_subjects, so that what happened to one session, job,
// resource, model or owner is a fast query, whatever the size of the log. It
// runs off the path of the commands; Reader.Events looks through the log
// itself for what is not indexed yet.
func Timeline() eventstore.Follower {
	return eventstore.Follower{Name: timelineFollower, Generation: 1, Run: timelineRun, Index: indexSubjects}
}

// indexSubjects lets the database copy the subjects by itself, which is many
// times faster than to send them here and back. An event may name a subject twice.
func indexSubjects(ctx context.Context, tx *sql.Tx, first, last int64) error {
	_, err := tx.ExecContext(ctx, `
INSERT INTO event_subjects (subject, first, positions)
SELECT subject, min(position), array_agg(DISTINCT position ORDER BY position)
FROM events CROSS JOIN LATERAL unnest(subjects || ('`+typePrefix+`' || type)) AS subject
WHERE position BETWEEN $1 AND $2
GROUP BY subject`, first, last)
	if err != nil {
		return fmt.Errorf("index the subjects of events: %w", err)
	}
	return nil
}
