package wrap

import (
	"strconv"
	"strings"
	"syscall"
)

// Codes of failures. The process manager of jobs knows invalid, unsupported,
// model_not_found and result_too_large as permanent, and tries again after any other.
const (
	codeInvalid        = "invalid"
	codeUnsupported    = "unsupported"
	codeModelNotFound  = "model_not_found"
	codeTooLarge       = "result_too_large"
	codeTimeout        = "timeout"
	codeProgramFailed  = "program_failed"
	codeNoFrames       = "frames_unavailable"
	codeInternal       = "internal"
	codeBusy           = "busy"
	codeJobNotFound    = "job_not_found"
	codeModelNotLoaded = "model_not_loaded"
)

// exits maps the ends of a program to codes.
type exits struct {
	byStatus map[int]string
	bySignal string
}

// readExits reads entries such as "2=permanent" and "signal=transient". What
// is not named is transient, but 126 and 127, with which whatever starts
// programs says that it could not.
func readExits(entries []string) (exits, error) {
	e := exits{byStatus: map[int]string{126: codeUnsupported, 127: codeUnsupported}, bySignal: codeProgramFailed}
	for _, entry := range entries {
		status, class, _ := strings.Cut(entry, "=")
		code, ok := map[string]string{"permanent": codeInvalid, "transient": codeProgramFailed}[class]
		n, err := strconv.Atoi(status)
		switch {
		case !ok || status != "signal" && (err != nil || n < 1 || n > 255):
			return e, wrong("--exit is STATUS=permanent or STATUS=transient, with a status of 1 to 255 or the word signal, not %q", entry)
		case status == "signal":
			e.bySignal = code
		default:
			e.byStatus[n] = code
		}
	}
	return e, nil
}

// code is that of an end other than success.
func (e *exits) code(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return e.bySignal
	}
	if code, ok := e.byStatus[ws.ExitStatus()]; ok {
		return code
	}
	return codeProgramFailed
}
