-- Forgetting an operation looks for the jobs that it began.
create index jobs_by_operation on jobs (operation);
