package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/migrations"
)

// store is the database that a command works on.
type store struct {
	db     *sqlx.DB
	dsn    string
	own    *postgres.Server // started for this command
	shared bool             // a running rrm's embedded server
}

// openStore connects to the server that is named, else to the embedded one of
// the data directory: that of a running rrm, else one started for the moment.
func (p *program) openStore(ctx context.Context, set storeSettings) (_ *store, err error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	s := &store{dsn: set.DatabaseURL}
	if s.dsn == "" {
		e := postgres.Embedded{DataDir: set.DataDir, Log: p.quiet(set)}
		s.own, err = e.Start(ctx)
		switch {
		case err == nil:
			s.dsn = s.own.DSN()
		case errors.Is(err, postgres.ErrInUse):
			s.shared = true
			if s.dsn, err = e.DSN(); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	if s.db, err = postgres.Open(ctx, s.dsn, postgres.Options{ApplicationName: "rrm admin", MaxOpen: 4}); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func (s *store) close(ctx context.Context) error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.own != nil {
		stop, cancel := withPatience(ctx)
		defer cancel()
		errs = append(errs, s.own.Stop(stop))
	}
	return errors.Join(errs...)
}

// withStore gives an administrative command its database, with the schema that this program wants.
func (p *program) withStore(f func(ctx context.Context, s *store) error) func(*cobra.Command, []string) error {
	return p.run(func(cmd *cobra.Command, _ []string) (err error) {
		set, err := load[storeSettings](cmd)
		if err != nil {
			return err
		}
		s, err := p.openStore(cmd.Context(), set)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.close(cmd.Context())) }()
		if err := s.current(cmd.Context()); err != nil {
			return err
		}
		return f(cmd.Context(), s)
	})
}

// current sees to it that the schema fits: in the own server it is brought up
// to date, in one that others use too that is for `rrm migrate`.
func (s *store) current(ctx context.Context) error {
	if s.own != nil {
		_, err := migrations.Up(ctx, s.db.DB)
		return err
	}
	version, want, err := migrations.Current(ctx, s.db.DB)
	if err != nil {
		return err
	}
	if version < want {
		return &hinted{fmt.Errorf("the database has schema %d, this program wants %d", version, want), "`rrm migrate` brings it up to date."}
	}
	if version > want {
		return &hinted{fmt.Errorf("the database has schema %d, newer than this program's %d", version, want), "Use the rrm that made it, or a newer one."}
	}
	return nil
}

func (p *program) migrateCommand() *cobra.Command {
	var status bool
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database's schema up to date", Args: needs(0, 0),
		Long: `Applies the migrations that are missing. "rrm serve" does the same when it starts; this is for a server that replicas
share, before a new version is rolled out.`,
		RunE: p.run(func(cmd *cobra.Command, _ []string) (err error) {
			set, err := load[storeSettings](cmd)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			s, err := p.openStore(ctx, set)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close(ctx)) }()
			if status {
				return p.migrationStatus(ctx, s)
			}
			if s.shared {
				return &hinted{errors.New("an rrm runs on this data directory"),
					"It brought its schema up to date when it started; to migrate to a newer version stop it, or simply start the newer rrm."}
			}
			return p.migrate(ctx, s)
		}),
	}
	cmd.Flags().BoolVar(&status, "status", false, "only list the migrations, and which are applied")
	return storeFlags(cmd)
}

func (p *program) migrate(ctx context.Context, s *store) error {
	n, err := migrations.Up(ctx, s.db.DB)
	if err != nil {
		return err
	}
	version, _, err := migrations.Current(ctx, s.db.DB)
	if err != nil {
		return err
	}
	if n == 0 {
		p.line("The schema is up to date: version %d of %s.", version, postgres.Redact(s.dsn))
		return nil
	}
	p.line("Applied %s: version %d of %s.", count(n, "migration", "migrations"), version, postgres.Redact(s.dsn))
	return nil
}

func (p *program) migrationStatus(ctx context.Context, s *store) error {
	steps, err := migrations.Status(ctx, s.db.DB)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, step := range steps {
		rows = append(rows, []string{fmt.Sprint(step.Version), step.Name, yes(step.Applied, "applied "+p.ago(step.At), "missing")})
	}
	p.table("There are no migrations.", []string{"version", "name", "state"}, rows)
	return nil
}
