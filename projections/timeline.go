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
	return eventstore.Follower{Name: timelineFollower, Generation: 1, Run: timelineRun, Apply: indexSubjects}
}

// indexSubjects works on the table and not on the run that it was given: the
// database copies the subjects by itself, which is many times faster. An event
// may name a subject twice.
func indexSubjects(ctx context.Context, tx *sql.Tx, run []eventstore.Event) error {
	if len(run) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `
INSERT INTO event_subjects (subject, position)
SELECT subject, position FROM events CROSS JOIN LATERAL unnest(subjects || ('`+typePrefix+`' || type)) AS subject
WHERE position BETWEEN $1 AND $2
ORDER BY subject, position
ON CONFLICT DO NOTHING`, run[0].Position, run[len(run)-1].Position)
	if err != nil {
		return fmt.Errorf("index the subjects of events: %w", err)
	}
	return nil
}
