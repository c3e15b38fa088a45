package service

import "context"

func (s *Service) startHTTP(_, _ context.Context) error { return nil }
