package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that the server's processes run as.
type account struct {
	uid, gid uint32
	switched bool     // we are root and it is another
	grant    *uintptr // a capability that it needs to reach its data, nil for none
}

// chooseAccount takes the program's own user, unless that is root: then the
// owner of the data, so that data made by one user stays that user's, else an
// unprivileged user of the system.
func chooseAccount(data string) (account, error) {
	if euid := os.Geteuid(); euid != 0 {
		return account{uid: uint32(euid), gid: uint32(os.Getegid())}, nil
	}
	info, err := os.Stat(data)
	switch {
	case err == nil:
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return account{uid: st.Uid, gid: st.Gid, switched: true}, nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return account{}, fmt.Errorf("look at the server's data: %w", err)
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), switched: true}, nil
		}
	}
	return account{uid: 65534, gid: 65534, switched: true}, nil
}

// command is a program of Postgres, run as the account, in a process group of
// its own: Ctrl-C at the terminal is for us, and we stop the server in order.
func (a account) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	// TZ spares initdb a search through all time zones.
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "HOME=/", "PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	if a.grant != nil {
		grantCapability(cmd.SysProcAttr, *a.grant)
	}
	return cmd
}

// reach makes sure that the account can come to path. Where a directory on the
// way is closed to it, as /root is, its processes get the one capability to pass
// through; where there is none to give, the error says what to do.
func (a *account) reach(path string, log *slog.Logger) error {
	closed, err := a.firstClosed(path)
	if err != nil || closed == "" {
		return err
	}
	if number, ok := searchCapability(); ok {
		a.grant = &number
		log.Info("the embedded Postgres may pass through a directory that is closed to its user",
			"directory", closed, "uid", a.uid)
		return nil
	}
	return fmt.Errorf("embedded Postgres: its user (uid %d) may not enter %s, so it cannot reach %s: "+
		"choose another data directory (such as /var/lib/rrm), or allow it (chmod o+x %s)", a.uid, closed, path, closed)
}

// firstClosed returns the first directory on the way to path, path included,
// that the account may not pass through; "" if there is none.
func (a account) firstClosed(path string) (string, error) {
	if !a.switched {
		return "", nil // what we ourselves can reach, it can
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("look at the way to the server's data: %w", err)
	}
	var way []string
	for dir := path; ; dir = filepath.Dir(dir) {
		way = append(way, dir)
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for i := len(way) - 1; i >= 0; i-- {
		info, err := os.Stat(way[i])
		if err != nil {
			return "", fmt.Errorf("look at the way to the server's data: %w", err)
		}
		if !a.maySearch(info) {
			return way[i], nil
		}
	}
	return "", nil
}

func (a account) maySearch(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch {
	case st.Uid == a.uid:
		return info.Mode()&0o100 != 0
	case st.Gid == a.gid:
		return info.Mode()&0o010 != 0
	default:
		return info.Mode()&0o001 != 0
	}
}

// takeOver gives data that root owns, restored from a copy say, to the account.
func (a account) takeOver(data string) error {
	info, err := os.Stat(data)
	if errors.Is(err, fs.ErrNotExist) || !a.switched {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the server's data: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid == a.uid {
		return nil
	}
	err = filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
	if err != nil {
		return fmt.Errorf("give the data to the server's user: %w", err)
	}
	return nil
}

// makeDir makes a directory that only the account (and root) may enter.
func (a account) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || st.Uid != a.uid && st.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s exists and is not a directory of ours; remove it", dir)
	}
	if a.switched {
		if err := os.Lchown(dir, int(a.uid), int(a.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o700)
}

// makeSocketDir: in a directory that all may write, such as /tmp, somebody else
// may have made it before, to listen in our server's place; makeDir refuses that.
func (a account) makeSocketDir(dir string) error {
	if err := a.makeDir(dir); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	return nil
}
