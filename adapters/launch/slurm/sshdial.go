package slurm

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// dialHost connects to one host, whose key must be known.
func (r *sshRunner) dialHost(ctx context.Context, h sshHost) (*ssh.Client, error) {
	check, err := knownhosts.New(r.knownHosts)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	auth, done, err := r.auth(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	conf := &ssh.ClientConfig{
		User: h.user, Auth: auth, HostKeyCallback: check, HostKeyAlgorithms: keyAlgorithms(check, h.address), Timeout: dialTimeout,
		ClientVersion: "SSH-2.0-rrm",
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // the handshake knows no context
	c, channels, requests, err := ssh.NewClientConn(conn, h.address, conf)
	if !stop() {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		_ = conn.Close()
		return nil, explainKey(err, r.knownHosts)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// explainKey says what to do about a host key that is not the known one.
func explainKey(err error, file string) error {
	var key *knownhosts.KeyError
	switch {
	case !errors.As(err, &key):
		return err
	case len(key.Want) == 0:
		return fmt.Errorf("the host's key is not in %s: %w", file, err)
	default:
		return fmt.Errorf("the host's key is not the one in %s: somebody may be in between: %w", file, err)
	}
}

// probeKey is no host's key: asking for it tells which keys are known instead.
var probeKey = ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))

// keyAlgorithms are those for which the host's key is known: the host must not
// choose another of its keys than the one that can be checked.
func keyAlgorithms(check ssh.HostKeyCallback, address string) []string {
	var key *knownhosts.KeyError
	probe, err := ssh.NewPublicKey(probeKey)
	if err != nil || !errors.As(check(address, &net.TCPAddr{}, probe), &key) {
		return nil
	}
	var algorithms []string
	for _, want := range key.Want {
		switch t := want.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			algorithms = append(algorithms, t)
		}
	}
	slices.Sort(algorithms)
	return slices.Compact(algorithms)
}

// auth are the ways to say who we are: the key files, then the agent.
func (r *sshRunner) auth(ctx context.Context) (methods []ssh.AuthMethod, done func(), err error) {
	done = func() {}
	var signers []ssh.Signer
	for _, path := range r.keyFiles {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, done, fmt.Errorf("read key: %w", err)
		}
		signer, err := ssh.ParsePrivateKey(b)
		if err != nil {
			return nil, done, fmt.Errorf("read key %s (a key with a passphrase belongs into an agent): %w", path, err)
		}
		signers = append(signers, signer)
	}
	var ask agent.ExtendedAgent
	if socket := os.Getenv("SSH_AUTH_SOCK"); socket != "" {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
			done = func() { _ = conn.Close() }
			ask = agent.NewClient(conn)
		}
	}
	if len(signers) == 0 && ask == nil {
		return nil, done, errors.New("there is no key file and no SSH agent")
	}
	return []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		all := slices.Clone(signers)
		if ask != nil {
			if more, err := ask.Signers(); err == nil {
				all = append(all, more...)
			}
		}
		return all, nil
	})}, done, nil
}
