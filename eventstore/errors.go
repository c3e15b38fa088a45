package eventstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// dataError is a mistake in the caller's data that was found before it was sent.
type dataError struct{ err error }

func (e dataError) Error() string { return e.err.Error() }
func (e dataError) Unwrap() error { return e.err }

// Unknown reports whether an append that gave err may have been committed, or
// may still be: the connection broke, the time was over. Then Fence, and look
// the answers up. What the server refused by an error of its own is not
// unknown, because a refused statement is undone.
func Unknown(err error) bool {
	if err == nil || errors.Is(err, ErrMoved) || errors.As(err, &dataError{}) {
		return false
	}
	var p *pq.Error
	if !errors.As(err, &p) {
		return true
	}
	switch p.Code.Class() {
	case pqerror.ClassConnectionException, pqerror.ClassSystemError, pqerror.ClassInternalError:
		return true
	case pqerror.ClassOperatorIntervention: // the server stops or ends the connection, at any time
		return p.Code != pqerror.QueryCanceled
	}
	return false
}

// DataError reports whether err is the fault of what was to be written: sent
// again it fails again.
func DataError(err error) bool {
	if errors.As(err, &dataError{}) {
		return true
	}
	var p *pq.Error
	if !errors.As(err, &p) {
		return false
	}
	switch p.Code.Class() {
	case pqerror.ClassDataException, pqerror.ClassIntegrityConstraintViolation, pqerror.ClassCardinalityViolation,
		pqerror.ClassProgramLimitExceeded, pqerror.ClassPLpgSQLError:
		return true
	}
	return false
}

// AnsweredAlready reports whether an append failed because one of its commands has an answer in the log.
func AnsweredAlready(err error) bool {
	var p *pq.Error
	return errors.As(err, &p) && p.Code == pqerror.UniqueViolation && p.Table == "answers"
}

// Contradicts reports whether a row was already there that the decision took as absent: what it was decided on is not what the log holds.
func Contradicts(err error) bool {
	var p *pq.Error
	return errors.As(err, &p) && p.Code == pqerror.UniqueViolation && p.Table != "answers"
}

// Transient reports whether the same work may well succeed a moment later: a
// broken connection, a server that starts or stops, a deadlock, a wait that took too long.
func Transient(err error) bool {
	var p *pq.Error
	if errors.As(err, &p) {
		switch p.Code.Class() {
		case pqerror.ClassConnectionException, pqerror.ClassTransactionRollback, pqerror.ClassInsufficientResources,
			pqerror.ClassOperatorIntervention, pqerror.ClassObjectNotInPrerequisiteState:
			return true
		}
		return p.Code == pqerror.IdleInTransactionSessionTimeout
	}
	var n net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n) ||
		errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), poisoned)
}

// poisoned is what lib/pq 1.12.3 says for ever on a connection that was cut in
// the middle of an answer; adapters/postgres takes such a connection out of use.
const poisoned = "there is already a query being processed on this connection"
