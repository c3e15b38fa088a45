package main

import (
	"math"
	"strings"

	"github.com/spf13/cobra"
)

const (
	groupSessions = "sessions"
	groupJobs     = "jobs"
	groupFleet    = "fleet"
	groupWhy      = "why"
	groupService  = "service"
)

// root makes the tree of commands.
func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "rrm",
		Short: "Rendering Resource Manager: warm renderers for who asks, started and stopped as the work comes and goes",
		Long: `rrm stands between visualization services and the machines that render for them.
It is the service itself (rrm serve) and the command line that talks to one.

  rrm serve --demo                       a service with its own database and a renderer to try
  rrm book demo neuron:1 --wait 1m       a warm renderer for interactive use
  rrm submit demo neuron:1 --follow --result neuron.png
  rrm demo                               the main story, told in under two minutes

Exit codes: 0 done, 1 failure, 2 wrong usage, 3 refused (the reason is on stderr), 4 the service cannot be reached.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	for _, g := range []cobra.Group{
		{ID: groupSessions, Title: "Sessions (interactive use):"},
		{ID: groupJobs, Title: "Jobs (images, frames, videos):"},
		{ID: groupFleet, Title: "Renderers and resources:"},
		{ID: groupWhy, Title: "What happened, and why:"},
		{ID: groupService, Title: "The service:"},
	} {
		root.AddGroup(&g)
	}
	root.SetCompletionCommandGroupID(groupService)
	root.SetHelpCommandGroupID(groupService)
	add := func(group string, all ...*cobra.Command) {
		for _, c := range all {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupSessions, p.bookCommand(), p.sessionsCommand(), p.renewCommand(), p.releaseCommand(), p.frameCommand())
	add(groupJobs, p.submitCommand(), p.jobsCommand(), p.jobCommand(), p.cancelCommand(), p.resultCommand())
	add(groupFleet, p.renderersCommand(), p.poolCommand(), p.resourcesCommand(), p.drainCommand(), p.stopCommand(), p.agentCommand(), p.modelsCommand(), p.admissionCommand())
	add(groupWhy, p.eventsCommand(), p.explainCommand())
	add(groupService, p.serveCommand(), p.demoCommand(), p.tokenCommand(), p.migrateCommand(), p.verifyCommand(), p.rebuildCommand(), p.benchCommand(), p.simulateCommand(), p.wrapCommand(), p.versionCommand())
	return root
}

// needs takes as many arguments as the command's usage names, at least least.
func needs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		name := strings.TrimPrefix(cmd.CommandPath(), "rrm ")
		_, names, _ := strings.Cut(cmd.Use, " ")
		switch {
		case len(args) < least:
			return usage("%s needs %s", name, names)
		case len(args) > most && most == 0:
			return usage("%s takes no arguments, and there is %q", name, args[0])
		case len(args) > most:
			return usage("%s takes %s, and there is %q too", name, names, args[most])
		}
		return nil
	}
}

const many = math.MaxInt

// run marks where a command begins: what failed before is wrong usage.
func (p *program) run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		p.began = true
		return f(cmd, args)
	}
}
