# What Ruby's resque does with jobs, in plain Ruby without gems.
#   ruby resque.rb PORT prune      Worker#prune_dead_workers, as each worker does when it starts
#   ruby resque.rb PORT work       take one job of emailQueue like Resque::Job: decode it, look up its class, perform
#   ruby resque.rb PORT enqueue    enqueue a job like Resque.enqueue(SendEmail, {...}), with arguments from standard input
#   ruby resque.rb PORT retry-all  Resque::Failure.requeue_to for each record, like "retry all" of resque-web
require "json"
require "socket"
require "time"

REDIS = TCPSocket.new("127.0.0.1", Integer(ARGV[0]))

def redis(*words)
  REDIS.write("*#{words.size}\r\n" + words.map { |word| "$#{word.to_s.bytesize}\r\n#{word}\r\n" }.join)
  answer
end

def answer
  line = REDIS.gets.chomp
  value = line[1..]
  case line[0]
  when "-" then raise value
  when ":" then Integer(value)
  when "*" then Array.new(Integer(value)) { answer }
  when "$"
    return if value == "-1"
    REDIS.read(Integer(value) + 2)[0..-3].force_encoding("UTF-8")
  else value
  end
end

class SendEmail
  @queue = :emailQueue
  class << self
    attr_reader :queue
    def perform(email) = puts("to #{email["to"]}: #{email["subject"]}")
  end
end

def enqueue(queue, name, *args)
  raise "Jobs must be placed onto a queue." if queue.to_s.empty?
  raise "Jobs must be given a class." if name.to_s.empty?
  redis("SADD", "resque:queues", queue)
  redis("RPUSH", "resque:queue:#{queue}", JSON.generate("class" => name, "args" => args))
end

def prune
  redis("HGETALL", "resque:workers:heartbeat").each_slice(2) do |worker, beat|
    next unless Time.now - Time.parse(beat) > 300
    job = redis("GET", "resque:worker:#{worker}")
    redis("RPUSH", "resque:failed", failure(worker, JSON.parse(job))) if job
    redis("SREM", "resque:workers", worker)
    redis("DEL", "resque:worker:#{worker}", "resque:worker:#{worker}:started")
    redis("HDEL", "resque:workers:heartbeat", worker)
  end
end

def failure(worker, job)
  error = "Worker #{worker} did not gracefully exit while processing #{job["payload"]["class"]}"
  JSON.generate("failed_at" => Time.now.utc.strftime("%Y/%m/%d %H:%M:%S UTC"), "payload" => job["payload"],
                "exception" => "Resque::PruneDeadWorkerDirtyExit", "error" => error, "backtrace" => [],
                "worker" => worker, "queue" => job["queue"])
end

case ARGV[1]
when "prune" then prune
when "work"
  job = JSON.parse(redis("LPOP", "resque:queue:emailQueue"))
  Object.const_get(job["class"]).perform(*job["args"])
when "enqueue"
  enqueue(SendEmail.queue, SendEmail.to_s, *JSON.parse($stdin.read))
when "retry-all"
  redis("LRANGE", "resque:failed", 0, -1).each_with_index do |text, index|
    item = JSON.parse(text)
    item["retried_at"] = Time.now.strftime("%Y/%m/%d %H:%M:%S %Z")
    redis("LSET", "resque:failed", index, JSON.generate(item))
    enqueue(item["queue"], item["payload"]["class"], *item["payload"]["args"])
  end
end
