package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/projections"
)

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "token", Short: "Make, list and revoke tokens", Args: needs(0, 0),
		Long: `Tokens say who may use the service: a client sees and touches what is its owner's, an operator all, an auditor reads all.
These commands work on the database itself, so they need no token: run them where the service runs, with its --data-dir,
or with its --database-url.`,
		RunE: p.run(func(cmd *cobra.Command, _ []string) error { return usage("say what: create, list or revoke") }),
	}
	cmd.AddCommand(p.tokenCreate(), p.tokenList(), p.tokenRevoke())
	return storeFlags(cmd)
}

func (p *program) tokenCreate() *cobra.Command {
	var role, owner string
	roles := []string{projections.RoleClient, projections.RoleOperator, projections.RoleAuditor}
	cmd := &cobra.Command{
		Use: "create --role ROLE --owner NAME", Short: "Make a token; it is shown this once", Args: needs(0, 0),
		Example: "  export RRM_TOKEN=$(rrm token create --role operator --owner $USER)",
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(roles, role) {
			return usage("--role is one of %s, not %q", strings.Join(roles, ", "), role)
		}
		if owner == "" {
			return usage("--owner NAME says whose token it is")
		}
		return p.withStore(func(ctx context.Context, s *store) error {
			id, secret, err := projections.NewTokens(s.db).Create(ctx, role, owner)
			if err != nil {
				return err
			}
			p.line("%s", secret)
			p.note("Token %s for the %s %q. It is not shown again; RRM_TOKEN or --token uses it, `rrm token revoke %s` ends it.", id, role, owner, id)
			return nil
		})(cmd, args)
	}
	cmd.Flags().StringVar(&role, "role", "", strings.Join(roles, ", "))
	cmd.Flags().StringVar(&owner, "owner", "", "whom it belongs to")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (p *program) tokenList() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "list", Short: "List tokens, revoked ones too", Args: needs(0, 0)}
	cmd.RunE = p.run(func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		return p.withStore(func(ctx context.Context, s *store) error { return p.listTokens(ctx, s, output) })(cmd, args)
	})
	outputFlag(cmd, &output)
	return cmd
}

func (p *program) listTokens(ctx context.Context, s *store, output string) error {
	all, err := projections.NewTokens(s.db).List(ctx)
	if err != nil {
		return err
	}
	if output == "table" {
		p.tokenTable(all)
		return nil
	}
	raw, err := json.Marshal(map[string]any{"items": all})
	if err != nil {
		return fmt.Errorf("print tokens: %w", err)
	}
	return writeJSON(p.stdout, raw)
}

func (p *program) tokenTable(all []projections.Token) {
	var rows [][]string
	for _, t := range all {
		used, state := "never", "valid"
		if t.LastUsedAt != nil {
			used = p.ago(*t.LastUsedAt)
		}
		if t.RevokedAt != nil {
			state = "revoked " + p.ago(*t.RevokedAt)
		}
		rows = append(rows, []string{t.ID, t.Role, string(t.Owner), p.ago(t.CreatedAt), used, state})
	}
	p.table("No token was made. On a loopback address the service is open.", []string{"token", "role", "owner", "made", "used", "state"}, rows)
}

func (p *program) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN-ID", Short: "End a token; repeating is safe", Args: needs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withStore(func(ctx context.Context, s *store) error {
				if err := projections.NewTokens(s.db).Revoke(ctx, args[0]); err != nil {
					if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindNotFound {
						return &hinted{err, "`rrm token list` shows the ids; the token itself is not one."}
					}
					return err
				}
				p.line("Token %s is revoked; within 2 s nobody gets in with it.", args[0])
				return nil
			})(cmd, args)
		},
	}
}
