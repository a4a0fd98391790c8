# The application's image. Build it from this folder:  docker build -f app.dockerfile -t analysis-app:example .
FROM node:22-alpine3.22
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts
COPY app.js ./
USER 65532:65532
CMD ["node", "app.js"]
