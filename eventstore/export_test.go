package eventstore

import "context"

// PruneChangesTo is PruneChanges with another reach.
func (l *Log) PruneChangesTo(ctx context.Context, kept int64) error { return l.pruneChanges(ctx, kept) }
