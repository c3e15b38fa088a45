// Package pool decides. It holds the live state of every pool (renderers,
// resources, models, sessions, jobs), the commands that may be given, the
// events that record what happened, and two pure functions between them:
// Decide turns a command into events or a refusal, Evolve folds an event into
// the state. After each command Decide settles the pools that it touched:
// every free slot goes to whoever should have it next, in the same batch.
//
// There is no clock, no chance and no I/O in here. Time and identifiers come
// with the command, and nothing depends on the order of a map, so the same
// events and commands give the same decisions on every machine, bit for bit.
package pool
